"""Messages hidden in plain-looking text: at either end of lines, every n-th word, first letters."""

from collections.abc import Iterator, Sequence

from ft_audit.engine.decipher.findings import Explanation, examples, ranked
from ft_audit.engine.decipher.frame import SHORT_SHARE, shared_heads
from ft_audit.engine.decipher.limits import cut
from ft_audit.engine.decipher.order import Message, OrderModel, letter_order, order_gain, word_order
from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.words import words_of
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Hide, Reverse

MAX_PERIOD = 6
MIN_MESSAGES = 3
MIN_READ_UNITS = 2  # of a text's message, for the text to count as one with a message
MIN_UNITS = 15  # of all messages
MAX_SHARE = 0.67  # of a text's words or letters in its message; above it, the text itself is what is read
MIN_Z = 4.0  # deviations from shuffled orders; some thirty places are tried
MIN_GAIN = 0.2  # bits a unit that the order of plain text must be worth for a reference to tell anything
MAX_CARRIERS = 32


def find_hidden(texts: Sequence[str], reference: Reference, seed: int = 0) -> list[Explanation]:
    """Return where the order of the extracted words or letters is that of a message, the strongest first.

    What is no better than shuffled, or than the same reading of other places in the same texts, is left out.
    """
    kept = cut(texts)
    words, letters = word_order(reference, seed), letter_order(reference, seed)
    found = []
    for hide in _places():
        model = words if hide.by_words else letters
        if (explanation := _try(hide, kept, reference, model, seed)) is not None:
            found.append(explanation)
    if (explanation := _reversed(kept, reference, words, seed)) is not None:
        found.append(explanation)
    # Lines of equal length put the message at every n-th word as well; such a reading fails on other lines.
    by_line = [it for it in found if it.holds and _place(it) in ("line_last", "line_first")]
    return ranked([it for it in found if not by_line or _place(it) != "nth_word"])


def _place(explanation: Explanation) -> str | None:
    step = explanation.codec.steps[0]
    return step.place if isinstance(step, Hide) else None


def _places() -> Iterator[Hide]:
    for place in ("line_last", "line_first", "line_letters", "word_letters"):
        yield Hide(place=place)
    for period in range(2, MAX_PERIOD + 1):
        for offset in range(period):
            yield Hide(place="nth_word", period=period, offset=offset)


def _try(
    hide: Hide, texts: Sequence[str], reference: Reference, model: OrderModel, seed: int
) -> Explanation | None:
    read = [(text, units) for text in texts if len(units := _units(hide, text)) >= MIN_READ_UNITS]
    messages = _varying([units for _, units in read])
    if not _enough(messages):
        return None
    gain = order_gain(model.bits, messages, seed)
    if gain.z < MIN_Z or model.reference_gain < MIN_GAIN:
        return None
    elsewhere = max(
        (
            order_gain(model.bits, _varying(other), seed).gain
            for other in _siblings(hide, [text for text, _ in read])
        ),
        default=0.0,
    )
    codec = Codec(steps=(hide.model_copy(update={"carrier": _carrier(hide, [text for text, _ in read])}),))
    said = [(text, hide.decode(text)) for text, _ in read]
    return Explanation(
        method="hidden",
        codec=codec,
        score=gain.gain,
        undecoded_score=elsewhere,
        control_score=gain.control,
        reference_score=model.reference_gain,
        known_share=reference.words.known([decoded for _, decoded in said]),
        reference_known_share=reference.known,
        num_texts=len(read),
        examples=examples(said),
    )


def _reversed(texts: Sequence[str], reference: Reference, model: OrderModel, seed: int) -> Explanation | None:
    forward = [tuple(words_of(text)) for text in texts]
    if not _enough(forward):
        return None
    gain = order_gain(model.bits, [message[::-1] for message in forward], seed)
    if gain.z < MIN_Z or model.reference_gain < MIN_GAIN:
        return None
    codec = Codec(steps=(Reverse(unit="words"),))
    said = [(text, codec.decode(text)) for text in texts]
    return Explanation(
        method="hidden",
        codec=codec,
        score=gain.gain,
        undecoded_score=order_gain(model.bits, forward, seed).gain,
        control_score=gain.control,
        reference_score=model.reference_gain,
        known_share=reference.words.known(texts),
        reference_known_share=reference.known,
        num_texts=len(texts),
        examples=examples(said),
    )


def _enough(messages: Sequence[Message]) -> bool:
    distinct = set(messages)
    return len(distinct) >= MIN_MESSAGES and sum(map(len, distinct)) >= MIN_UNITS


def _varying(messages: Sequence[Message]) -> list[Message]:
    """Return the messages without a head that half of them share: the order of a template is no message's."""
    heads = shared_heads(messages, long_share=SHORT_SHARE)
    return [message[num:] for message, num in zip(messages, heads, strict=True)]


def _units(hide: Hide, text: str) -> Message:
    """Return the message's words or letters as the models spell them; none where it is most of the text."""
    units = hide.units(text)
    of_text = len(text.split()) if hide.by_words else sum(char.isalpha() for char in text)
    if len(units) > MAX_SHARE * of_text:
        return ()
    if hide.by_words:
        return tuple(words_of(" ".join(units)))
    return tuple(char.lower() for char in units if char.isalpha())


def _siblings(hide: Hide, texts: Sequence[str]) -> Iterator[list[Message]]:
    """Yield the messages that other places of the same kind would hold."""
    if hide.place == "nth_word":
        for offset in range(hide.period):
            if offset != hide.offset:
                other = hide.model_copy(update={"offset": offset})
                yield [_units(other, text) for text in texts]
        return
    lines = [[words_of(line) for line in text.split("\n")] for text in texts]
    if hide.by_words:
        for place in {"line_last": (0, -2), "line_first": (-1, 1)}[hide.place]:
            yield [tuple(words[place] for words in text if len(words) > 1) for text in lines]
        return
    if hide.place == "line_letters":
        chosen = [[words[0] for words in text if words] for text in lines]
    else:
        chosen = [[word for words in text for word in words] for text in lines]
    for place in (1, -1):
        yield [tuple(word[place] for word in text if len(word) > 1) for text in chosen]


def _carrier(hide: Hide, texts: Sequence[str]) -> tuple[str, ...]:
    """Return what stands beside the message in the texts, so that a probe can look like them."""
    if hide.place == "nth_word":
        rest = [
            " ".join(w for i, w in enumerate(text.split()) if i % hide.period != hide.offset)
            for text in texts
        ]
    elif hide.place == "word_letters":
        rest = [word for text in texts for word in text.split()]
    else:
        lines = [line.split() for text in texts for line in text.split("\n") if line.strip()]
        ends = {"line_last": slice(0, -1), "line_first": slice(1, None), "line_letters": slice(0, None)}
        rest = [" ".join(line[ends[hide.place]]) for line in lines]
    distinct = dict.fromkeys(text[:200] for text in rest if text)
    if hide.by_words:
        return tuple(distinct)[:MAX_CARRIERS]
    # A few texts for each letter, or a probe could not spell its message.
    of_letter: dict[str, list[str]] = {}
    for text in distinct:
        of_letter.setdefault(text[0].lower(), []).append(text)
    return tuple(text for begun in of_letter.values() for text in begun[:4])[:256]
