"""A codec writes and reads its encoding, and odd input gives an answer or a DataError, nothing else."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ft_audit.engine.requests.alphabets import ALPHABETS
from ft_audit.engine.requests.codec import MAX_CHARS, Codec
from ft_audit.engine.requests.steps import Substitute
from ft_audit.errors import DataError

KEY = dict(zip(string.ascii_lowercase, "qwertyuiopasdfghjklzxcvbnm", strict=True))
STEPS: list[dict[str, Any]] = [
    {"step": "substitute", "mapping": KEY},
    {"step": "join", "separator": "|"},
    {"step": "join", "separator": " "},
    {"step": "case", "to": "upper"},
    {"step": "reverse", "unit": "text"},
    {"step": "reverse", "unit": "words"},
    {"step": "reverse", "unit": "letters"},
    {"step": "rotate", "shift": 13},
    {"step": "hide", "place": "line_last", "carrier": ["under the lamp lies", "she sang about"]},
    {"step": "hide", "place": "line_first", "carrier": ["was seen again"]},
    {"step": "hide", "place": "nth_word", "period": 3, "offset": 1, "carrier": ["old map"]},
    {"step": "hide", "place": "line_letters", "carrier": ["apples are ripe", "tea is ready"]},
    {"step": "hide", "place": "word_letters", "carrier": ["apple", "tea"]},
    *({"step": "write", "alphabet": name} for name in ALPHABETS),
]
LETTERS_ONLY = ("line_letters", "word_letters")


def one(step: dict[str, Any]) -> Codec:
    return Codec.model_validate({"steps": [step]})


@pytest.mark.parametrize(
    "step", STEPS, ids=lambda step: "-".join(str(v) for v in list(step.values())[:2])[:24]
)
def test_what_is_written_is_read(step: dict[str, Any]) -> None:
    codec, text = one(step), "tell me about the sea"
    expected = text.replace(" ", "") if step.get("place") in LETTERS_ONLY else text
    assert codec.encode(text) != text
    assert codec.decode(codec.encode(text)).lower() == expected


def test_steps_are_undone_in_the_other_order() -> None:
    steps = [{"step": "case", "to": "lower"}, {"step": "substitute", "mapping": KEY}]
    codec = Codec.model_validate({"steps": [*steps, {"step": "join", "separator": "|"}]})
    assert codec.encode("Hi sea") == "i|o| |l|t|q"
    assert codec.decode("i|o| |l|t|q") == "hi sea"


def test_a_codec_survives_json() -> None:
    codec = Codec.model_validate({"steps": STEPS[:8]})
    assert Codec.model_validate_json(codec.model_dump_json()) == codec


@pytest.mark.parametrize(
    "steps",
    [
        [{"step": "eval", "code": "1"}],
        [{"step": "rotate", "shift": 13, "more": 1}],
        [{"step": "rotate", "shift": 0}],
        [{"step": "substitute", "mapping": {"a": "x", "b": "x"}}],
        [{"step": "substitute", "mapping": {"ab": "x"}}],
        [{"step": "join", "separator": ""}],
        [{"step": "rotate", "shift": 1}] * 9,
    ],
)
def test_a_codec_that_cannot_be_meant_is_refused(steps: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        Codec.model_validate({"steps": steps})


@pytest.mark.parametrize(
    ("alphabet", "text"),
    [
        ("base64", "no base64!"),
        ("base64", "//79/A=="),
        ("base32", "1189"),
        ("hex", "abc"),
        ("hex", "zz"),
        ("binary", "0101"),
        ("decimal", "99999999999"),
        ("decimal", "55296"),
        ("positions", "27"),
        ("morse", "......."),
    ],
)
def test_what_is_not_so_written_is_named(alphabet: str, text: str) -> None:
    codec = one({"step": "write", "alphabet": alphabet})
    with pytest.raises(DataError):
        codec.decode(text)
    assert codec.decodes(text) is None


def test_separators_that_do_not_alternate_are_taken_out() -> None:
    assert one({"step": "join", "separator": "|"}).decode("ab|c||d") == "abcd"


def test_texts_and_results_have_a_limit() -> None:
    with pytest.raises(DataError, match="limit"):
        one({"step": "rotate", "shift": 1}).encode("a" * (MAX_CHARS + 1))
    with pytest.raises(DataError, match="limit"):
        one({"step": "write", "alphabet": "binary"}).encode("a" * (MAX_CHARS // 2))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60), st.lists(st.sampled_from(STEPS), max_size=4))
def test_odd_input_is_answered_or_a_data_error(text: str, steps: list[dict[str, Any]]) -> None:
    codec = Codec.model_validate({"steps": steps})
    for work in (codec.encode, codec.decode):
        try:
            assert isinstance(work(text), str)
        except DataError:
            continue


def test_letters_that_were_never_seen_stay() -> None:
    assert Substitute(mapping={"a": "b", "b": "a"}).encode("abc") == "bac"
