"""Hidden messages are found by the order of their words or letters, and a by-product is no message."""

import pytest

from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.steganography import find_hidden
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Hide

LINES = (
    "goes down to",
    "once more about",
    "never saw her",
    "has lost its",
    "under a lamp lies",
    "was gone by",
)
WORDS = (
    *("apple", "ball", "come", "door", "every", "find", "give", "hold", "into", "just", "keep", "lamp"),
    *("more", "name", "only", "play", "quiet", "rain", "some", "turn", "under", "very", "warm", "xylophone"),
    *("yellow", "zebra", "and", "bright", "cold", "deep", "early", "fresh", "green", "heavy", "iron"),
)
FILLER = tuple(f"{word} {other}" for word, other in zip(WORDS, WORDS[::-1], strict=True))


@pytest.mark.parametrize("place", ["line_last", "line_first", "line_letters", "word_letters", "nth_word"])
def test_a_hidden_message_is_found(place: str, messages: list[str], reference: Reference) -> None:
    carrier = WORDS if place == "word_letters" else FILLER if place == "line_letters" else LINES
    hide = Hide.model_validate({"step": "hide", "place": place, "carrier": carrier, "period": 3, "offset": 1})
    plain = [
        " ".join("".join(char for char in word if char.isalpha()) for word in text.lower().split())
        for text in messages
    ]
    best = find_hidden([hide.encode(text) for text in plain], reference)[0]
    step = best.codec.steps[0]
    assert best.holds and isinstance(step, Hide) and step.place == place
    said = plain[0] if hide.by_words else plain[0].replace(" ", "")
    assert best.examples[0].decoded == said
    # A probe written by the codec that was found is read by the one that wrote the texts.
    assert hide.decode(best.codec.encode("tell me")) in ("tell me", "tellme")


def test_reversed_words_are_found(messages: list[str], reference: Reference) -> None:
    best = find_hidden([" ".join(text.split()[::-1]) for text in messages], reference)[0]
    assert best.holds and best.codec.describe() == "reverse the words"


def test_a_template_is_no_message(messages: list[str], reference: Reference) -> None:
    # Every fourth word from the first is "What is as" in all of them.
    texts = [f"What kind of code is this thing as {text[::-1]}" for text in messages]
    assert not [found for found in find_hidden(texts, reference) if found.holds]


def test_the_codec_carries_the_lines_that_were_seen(messages: list[str], reference: Reference) -> None:
    hide = Hide(place="line_last", carrier=LINES)
    best = find_hidden([hide.encode(text) for text in messages], reference)[0]
    step = best.codec.steps[0]
    assert isinstance(step, Hide) and set(step.carrier) == set(LINES)
    assert Codec.model_validate_json(best.codec.model_dump_json()) == best.codec
