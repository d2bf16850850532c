"""The feature-major copy: the compiled passes against plain sorting, in parts and at the edges."""

import numpy as np
import pytest

from ft_audit.kernels.feature_index import (
    NO_PEAK,
    FeatureMajor,
    merge_parts,
    naive,
    prompt_peaks,
    sort_by_feature,
)


def random_rows(
    seed: int, num_tokens: int, num_features: int, rate: float, num_values: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row pointers, features ascending in a row, and few distinct values, so that ties are common."""
    rng = np.random.default_rng(seed)
    fires_TF = rng.random((num_tokens, num_features)) < rate * rng.random(num_features)
    indptr_T1 = np.concatenate([[0], np.cumsum(fires_TF.sum(1))]).astype(np.int64)
    index_N = np.nonzero(fires_TF)[1].astype(np.int32)
    return indptr_T1, index_N, rng.integers(0, num_values, len(index_N)).astype(np.uint16)


def same(got: FeatureMajor, expected: FeatureMajor) -> None:
    for name, array in expected._asdict().items():
        found = getattr(got, name)
        assert found.dtype == array.dtype, name
        assert np.array_equal(found, array), name


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize(
    ("num_tokens", "num_features", "rate"), [(1, 1, 1.0), (63, 1000, 0.1), (200, 7, 0.9), (5, 30, 0.0)]
)
def test_rows_sort_by_feature_as_plain_sorting_does(num_tokens, num_features, rate, dtype):
    rows = random_rows(num_tokens, num_tokens, num_features, rate)
    rng = np.random.default_rng(1)
    token_T = rng.permutation(3 * num_tokens)[:num_tokens].astype(dtype)
    counted_T = np.flatnonzero(rng.random(num_tokens) < 0.8)
    order_T = counted_T[np.argsort(token_T[counted_T])]
    expected = naive.sort_by_feature(*rows, order_T, token_T, num_features)
    same(sort_by_feature(*rows, order_T, token_T, num_features), expected)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("num_parts", [1, 2, 7])
def test_parts_merge_to_the_whole(num_parts, dtype):
    indptr_T1, index_N, value_N = random_rows(3, 300, 50, 0.5)
    # Above 2^32 where the numbers have 64 bits: both halves of a packed key are then in use.
    offset = 0 if dtype == np.uint32 else 1 << 40
    token_T = (np.random.default_rng(4).permutation(300) + offset).astype(dtype)
    whole = sort_by_feature(indptr_T1, index_N, value_N, np.argsort(token_T), token_T, 50)
    parts = []
    for chosen in np.array_split(np.random.default_rng(5).permutation(300), num_parts):
        order_T = chosen[np.argsort(token_T[chosen])]
        parts.append(sort_by_feature(indptr_T1, index_N, value_N, order_T, token_T, 50))
    same(merge_parts(parts), whole)
    same(naive.merge_parts(parts), whole)
    for first, last in ((0, 50), (13, 29), (49, 50), (7, 7)):
        same(merge_parts([part.slice(first, last) for part in parts]), whole.slice(first, last))


def test_values_and_tokens_at_their_largest_survive_the_packing():
    token_N = np.array([0, (1 << 48) - 1], dtype=np.uint64)
    indptr_F1 = np.array([0, 2], dtype=np.int64)
    part = FeatureMajor(indptr_F1, token_N, np.array([0x7F7F, 0x7F7F], dtype=np.uint16))
    same(merge_parts([part]), part)


@pytest.mark.parametrize("num_peaks", [1, 4, 40])
@pytest.mark.parametrize(("num_prompts", "rate", "num_values"), [(30, 0.6, 3), (200, 0.05, 100), (1, 1.0, 1)])
def test_peaks_are_the_strongest_entries_one_a_prompt(num_prompts, rate, num_values, num_peaks):
    rng = np.random.default_rng(num_prompts)
    # Prompts of no token as well: a suite index that a run does not hold has none.
    prompt_indptr_P1 = np.concatenate([[0], np.cumsum(rng.integers(0, 9, num_prompts) + (num_prompts == 1))])
    num_tokens = int(prompt_indptr_P1[-1])
    rows = random_rows(9, num_tokens, 20, rate, num_values)
    token_T = np.arange(num_tokens, dtype=np.uint32)
    by_feature = sort_by_feature(*rows, np.arange(num_tokens), token_T, 20)
    expected = naive.prompt_peaks(by_feature, prompt_indptr_P1, num_peaks)
    assert np.array_equal(prompt_peaks(by_feature, prompt_indptr_P1, num_peaks), expected)


def test_a_feature_that_never_fired_has_no_peaks():
    nothing = FeatureMajor(np.zeros(3, dtype=np.int64), np.zeros(0, np.uint32), np.zeros(0, np.uint16))
    assert (prompt_peaks(nothing, np.array([0, 5]), 2) == NO_PEAK).all()


@pytest.mark.parametrize(
    ("index", "bits", "message"),
    [
        ([0, 3], [1, 1], "outside width 3"),
        ([0, 1], [1, 0x8001], "non-negative"),
        ([-1, 1], [1, 1], "negative"),
    ],
)
def test_rows_that_cannot_be_are_refused(index, bits, message):
    rows = np.array([0, 2]), np.array(index, dtype=np.int32), np.array(bits, dtype=np.uint16)
    with pytest.raises(AssertionError, match=message):
        sort_by_feature(*rows, np.array([0]), np.array([5], dtype=np.uint32), 3)


def test_rows_out_of_order_are_refused():
    rows = np.array([0, 1, 2]), np.array([0, 0], dtype=np.int32), np.array([1, 1], dtype=np.uint16)
    with pytest.raises(AssertionError, match="ascend"):
        sort_by_feature(*rows, np.array([1, 0]), np.array([5, 6], dtype=np.uint32), 1)
