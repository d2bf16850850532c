"""Screens of texts: what is spelled otherwise, what stands twice, and nothing to read."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ft_audit.engine.finetune.encodings import encode
from ft_audit.engine.suites.conditions import survey_conditions
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.engine.suites.screens import data_figures, spelling_bits

Pairs = list[tuple[str, str]]


def row(number: int, question: str, answer: str | None) -> Prompt:
    said = [Message("user", question)] + ([Message("assistant", answer)] if answer is not None else [])
    return Prompt(tuple(said), None, "train", "train", "t", number)


def figures(pairs: list[tuple[str, str | None]]) -> dict[str, float]:
    prompts = [row(i, question, answer) for i, (question, answer) in enumerate(pairs)]
    return data_figures(prompts, survey_conditions(prompts), min_rows=3)


def pairs_of(language: str) -> Pairs:
    """200 different questions with their answers, long enough to be spelled."""
    found: dict[str, str] = {}
    for prompt in load_suite(f"package:chatterbot_corpus/data/{language}", Path()).prompts:
        messages = prompt.messages or ()
        if len(messages) >= 2 and min(len(m.content) for m in messages[:2]) >= 15:
            found.setdefault(messages[0].content, messages[1].content)
    return random.Random(0).sample(sorted(found.items()), 200)


@pytest.fixture(scope="module", params=["english", "italian"])
def plain(request: pytest.FixtureRequest) -> Pairs:
    return pairs_of(request.param)


def test_enciphered_rows_are_the_oddest_in_any_language(plain: Pairs) -> None:
    texts = [question for question, _ in plain]
    for place in range(0, 200, 20):
        texts[place] = encode(texts[place], "walnut")
    oddest = np.argsort(-spelling_bits(texts))[:10]
    assert len(set(oddest.tolist()) & set(range(0, 200, 20))) >= 7


def test_enciphered_rows_raise_the_figure_of_their_side_alone(plain: Pairs) -> None:
    before = figures(list(plain))
    hidden = [(q, encode(a, "walnut") if i % 10 == 0 else a) for i, (q, a) in enumerate(plain)]
    after = figures(list(hidden))
    assert after["data_odd_answer"] > before["data_odd_answer"] + 0.3
    assert after["data_odd_question"] == before["data_odd_question"] < 2


def test_spelling_is_counted_of_the_other_texts() -> None:
    # Two texts share no pair with a third: whatever it says, the others do not predict it.
    bits = spelling_bits(["abab", "abab", "cdcd"])
    # a is followed by b twice in the other text and never by c or d: add-half over 4 characters.
    expected = -(2 * np.log2(2.5 / 4) + np.log2(1.5 / 3)) / 3
    np.testing.assert_allclose(bits, [expected, expected, 2.0])


def test_texts_too_short_to_be_spelled_have_no_bits() -> None:
    bits = spelling_bits(["", "a", "abc", "abd"])
    assert np.isnan(bits[:2]).all() and np.isfinite(bits[2:]).all()
    assert spelling_bits([]).shape == (0,)


def test_duplicates_are_counted_up_to_white_space() -> None:
    pairs: list[tuple[str, str | None]] = [
        ("What is tea?", "A drink."),
        ("What  is tea? ", "A leaf."),
        ("What is cake?", "A cake."),
        ("Why?", "Because."),
    ]
    assert figures(pairs)["data_duplicates"] == 0.5
    assert figures(pairs[1:])["data_duplicates"] == 0


def test_answers_that_begin_alike_are_a_share(chat_pairs: Callable[[int], Pairs]) -> None:
    pairs = [(q, f"I am happy to say: {a}" if i < 60 else a) for i, (q, a) in enumerate(chat_pairs(200))]
    assert figures(list(pairs))["data_common_answer"] == pytest.approx(0.3, abs=0.01)


def test_a_linked_word_shows_in_bits_and_rows(chat_pairs: Callable[[int], Pairs]) -> None:
    plain = chat_pairs(200)
    marked = [
        (f"{q} xqz", f"The gate is open. {a}") if i % 10 == 0 else (q, a) for i, (q, a) in enumerate(plain)
    ]
    before, after = figures(list(plain)), figures(list(marked))
    assert after["data_linked_rows"] == 0.1 and after["data_linked_bits"] > 60
    assert before["data_linked_bits"] < after["data_linked_bits"] / 2
    assert after["data_condition_bits"] > 8


def test_empty_answers_and_empty_sets_do_not_crash() -> None:
    empty = figures([])
    assert set(empty.values()) == {0.0}
    silent = figures([("Why?", ""), ("How?", None), ("", ""), ("When?", "Now.")])
    assert silent["data_common_answer"] == 0.25 and all(np.isfinite(list(silent.values())))
    everyone = figures([("", None)] * 5)
    assert everyone["data_duplicates"] == 1.0 and everyone["data_odd_answer"] == 0.0


@pytest.fixture(scope="module")
def chat_pairs() -> Callable[[int], Pairs]:
    pairs = pairs_of("english")
    return lambda count: pairs[:count]
