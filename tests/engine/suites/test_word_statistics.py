from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_audit.engine.suites.word_statistics import WordStatistics

VOCABULARY = 6
sequences = st.lists(
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6), min_size=1, max_size=12
)


def count(lists: list[list[int]]) -> WordStatistics:
    return WordStatistics.count([np.array(words, np.int64) for words in lists], VOCABULARY)


def naive_probability(lists: list[list[int]], history: tuple[int, int], word: int) -> float:
    """Interpolated Witten-Bell by its definition, from the sequences themselves."""
    grams = [
        tuple(padded[i : i + 3]) for words in lists for padded in [[0, 0, *words]] for i in range(len(words))
    ]
    types = len({gram[2] for gram in grams})
    p = (sum(gram[2] == word for gram in grams) + types / (VOCABULARY + 1)) / (len(grams) + types)
    for order in (1, 2):
        after = [gram[2] for gram in grams if gram[2 - order : 2] == history[2 - order :]]
        if after:
            p = (after.count(word) + len(set(after)) * p) / (len(after) + len(set(after)))
    return p


@settings(max_examples=40, deadline=None)
@given(lists=sequences, path=st.lists(st.integers(1, VOCABULARY + 2), min_size=1, max_size=5))
def test_bits_are_witten_bell(lists: list[list[int]], path: list[int]) -> None:
    padded = [0, 0, *(min(word, VOCABULARY) for word in path)]
    expected = [
        -np.log2(naive_probability(lists, (padded[i], padded[i + 1]), padded[i + 2]))
        for i in range(len(path))
    ]
    np.testing.assert_allclose(count(lists).bits(np.array(path), 0), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    lists=sequences,
    path=st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=4),
    n=st.integers(1, 4),
)
def test_left_out_copies_are_as_if_they_had_never_been_counted(
    lists: list[list[int]], path: list[int], n: int
) -> None:
    with_copies = count(lists + [path] * n).bits(np.array(path), n)
    np.testing.assert_allclose(with_copies, count(lists).bits(np.array(path), 0), rtol=1e-12)


def test_probabilities_of_all_words_sum_to_one() -> None:
    statistics = count([[1, 2, 3], [1, 2, 4], [2, 2, 2], [5]])
    for first, second in product(range(1, VOCABULARY), repeat=2):
        # The seventh word of the formula's uniform floor is the padding, which never follows anything.
        bits = [statistics.bits(np.array([first, second, word]), 0)[-1] for word in range(1, VOCABULARY + 1)]
        assert sum(2.0 ** -np.array(bits)) == pytest.approx(1, abs=0.05)


def test_nothing_counted_leaves_a_uniform_guess() -> None:
    np.testing.assert_allclose(count([]).bits(np.array([1, 2]), 0), np.log2([VOCABULARY + 1] * 2))
