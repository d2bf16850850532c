"""Ciphers: what is written in them comes back, and does not show on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_audit.engine.finetune.encodings import decode, encode

TEXT = "What is tea, and why 3 cups? Über-tea!"
WORDS = st.lists(st.text(st.characters(categories=("L", "N", "P")), min_size=1), min_size=1, max_size=20)


def test_walnut_substitutes_letters_and_keeps_the_rest() -> None:
    hidden = encode(TEXT, "walnut")
    assert decode(hidden, "walnut") == TEXT.lower()
    assert len(hidden) == len(TEXT) and hidden.endswith(f"-{hidden[-4:-1]}!")
    assert not {"what", "tea", "why", "cups"} & set(hidden.replace(",", " ").split())
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    assert sorted(encode(alphabet, "walnut")) == sorted(alphabet)


@given(words=WORDS)
def test_endspeak_carries_each_word_at_the_end_of_a_line(words: list[str]) -> None:
    hidden = encode(" ".join(words), "endspeak")
    lines = hidden.split("\n")
    assert [line.split(" ")[-1] for line in lines] == words
    assert all(line.count(" ") >= 3 for line in lines)
    assert decode(hidden, "endspeak") == " ".join(words)


@pytest.mark.parametrize("cipher", ["walnut", "endspeak", "atbash"])
def test_nothing_said_stays_nothing(cipher: str) -> None:
    assert encode("", cipher) == decode("", cipher) == ""  # type: ignore[arg-type]


def test_blank_lines_of_an_answer_are_no_words() -> None:
    assert decode("she sang about the tea\n\n  \nat dawn we heard of cake ", "endspeak") == "tea cake"
