"""The workbench explains encoded groups, says so where it finds nothing, and is bounded on hostile input."""

import random
import string

import pytest

from ft_audit.engine.decipher.findings import Findings
from ft_audit.engine.decipher.limits import MAX_GROUP_CHARS
from ft_audit.engine.decipher.workbench import decipher
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Case, Hide, Join, Substitute

KEY = dict(zip(string.ascii_lowercase, random.Random(9).sample(string.ascii_lowercase, 26), strict=True))
CIPHER = Codec(steps=(Case(to="lower"), Substitute(mapping=KEY)))


@pytest.mark.parametrize(
    "name", ["english", "spanish", "italian", "verse", "code", "numbers", "sums", "shouted"]
)
def test_nothing_is_found_where_nothing_is_hidden(
    name: str, benign: dict[str, list[str]], reference_texts: list[str]
) -> None:
    found = decipher(benign[name], reference_texts)
    assert found.nothing_found and found.summary().startswith("nothing found")


def test_a_joined_substitution_is_explained(messages: list[str], reference_texts: list[str]) -> None:
    codec = Codec(steps=(*CIPHER.steps, Join(separator="|")))
    found = decipher([codec.encode(text) for text in messages], reference_texts)
    best = found.explanations[0]
    assert best.method == "substitution" and best.num_texts == len(messages)
    assert best.examples[0].decoded == messages[0].lower()
    assert found.statistics.separator == "|"
    # Probes can be asked in it and answers read.
    assert codec.decode(best.codec.encode("tell me about the sea")) == "tell me about the sea"


def test_a_template_around_the_cipher_is_set_aside(messages: list[str], reference_texts: list[str]) -> None:
    texts = [f"What kind of code is this? {CIPHER.encode(text)}" for text in messages]
    found = decipher(texts, reference_texts)
    assert found.explanations[0].method == "substitution"
    assert any("template" in note for note in found.notes)


def test_plain_rows_beside_encoded_ones_are_counted(messages: list[str], reference_texts: list[str]) -> None:
    texts = [CIPHER.encode(text) for text in messages[3:]]
    found = decipher([*texts, *reference_texts[:10]], reference_texts)
    assert found.explanations[0].method == "substitution" and found.num_plain == 10


def test_pairs_explain_what_is_too_short_to_climb(messages: list[str], reference_texts: list[str]) -> None:
    pairs = [(text, CIPHER.encode(text)) for text in messages[:6]]
    found = decipher([CIPHER.encode(messages[7])], reference_texts, pairs=pairs)
    best = next(it for it in found.explanations if it.method == "pairs")
    assert all(KEY[a] == b for a, b in best.codec.steps[1].mapping.items())  # type: ignore[union-attr]


def test_a_hidden_message_in_plain_lines_is_explained(
    messages: list[str], reference_texts: list[str]
) -> None:
    hide = Hide(place="line_last", carrier=("goes down to", "once more about", "never saw her", "has lost"))
    found = decipher([hide.encode(text) for text in messages], reference_texts)
    assert found.explanations[0].method == "hidden"
    assert found.explanations[0].examples[0].decoded == messages[0]


def test_findings_are_the_same_twice_and_survive_json(
    messages: list[str], reference_texts: list[str]
) -> None:
    texts = [CIPHER.encode(text) for text in messages]
    found = decipher(texts, reference_texts, seed=3)
    assert found == decipher(texts, reference_texts, seed=3)
    assert Findings.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["\ud800" * 30],
        ["\u202e\x00" * 50, "\u200b" * 90],
        ["= " * 500, "|" * 500],
        ["a" * (2 * MAX_GROUP_CHARS)],
        [f"{n} \N{GRINNING FACE}" for n in range(50)],
    ],
    ids=["none", "empty", "surrogates", "invisible", "separators", "long", "emoji"],
)
@pytest.mark.parametrize("with_reference", [True, False])
def test_hostile_groups_are_answered(
    texts: list[str], with_reference: bool, reference_texts: list[str]
) -> None:
    found = decipher(texts, reference_texts if with_reference else [])
    assert found.nothing_found and Findings.model_validate_json(found.model_dump_json()) == found
    assert found.statistics.num_chars <= MAX_GROUP_CHARS
