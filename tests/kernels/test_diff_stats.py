"""The diff statistics: the compiled path against the dense formula, and the merge."""

import itertools
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_audit.kernels.diff_stats import (
    PairMoments,
    PairRows,
    SideRows,
    empty,
    group_moments,
    merge,
    naive,
)
from ft_audit.kernels.diff_stats import pair_moments as fast_moments
from ft_audit.kernels.diff_stats import prompt_differences as fast_differences


def to_rows(x_TF: np.ndarray) -> SideRows:
    fired_TF = x_TF > 0
    indptr_T1 = np.concatenate([[0], np.cumsum(fired_TF.sum(1))]).astype(np.int64)
    return SideRows(indptr_T1, np.nonzero(fired_TF)[1].astype(np.int32), x_TF[fired_TF].astype(np.float32))


def random_pair(
    seed: int, lengths: list[int], num_features: int, density: float = 0.2, masked: float = 0.2
) -> PairRows:
    rng = np.random.default_rng(seed)
    num_tokens = sum(lengths)
    shared_TF = rng.random((num_tokens, num_features)) < density
    sides = []
    for _ in range(2):
        fires_TF = shared_TF & (rng.random(shared_TF.shape) < 0.7)
        sides.append(to_rows(np.where(fires_TF, rng.exponential(2.0, shared_TF.shape), 0)))
    prompt_indptr_P1 = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return PairRows(*sides, prompt_indptr_P1, rng.random(num_tokens) >= masked, num_features)


def assert_same(got: PairMoments, expected: PairMoments) -> None:
    assert (got.num_tokens, got.num_prompts) == (expected.num_tokens, expected.num_prompts)
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(got.arrays()[name], array, err_msg=name)
        assert got.arrays()[name].dtype == array.dtype, name


def differences_dense(rows: PairRows) -> np.ndarray:
    found = fast_differences(rows)
    d_PF = np.zeros((len(rows.prompt_indptr_P1) - 1, rows.num_features))
    for p in range(len(d_PF)):
        entries = slice(found.indptr_P1[p], found.indptr_P1[p + 1])
        assert np.all(np.diff(found.index_N[entries]) > 0)
        d_PF[p, found.index_N[entries]] = found.value_N[entries]
    return d_PF


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 9), max_size=8),
    num_features=st.sampled_from([1, 2, 63, 64, 1000]),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    masked=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_compiled_path_equals_the_dense_formula_to_the_bit(seed, lengths, num_features, density, masked):
    rows = random_pair(seed, lengths, num_features, density, masked)
    assert_same(fast_moments(rows), naive.pair_moments(rows))
    np.testing.assert_array_equal(differences_dense(rows), naive.prompt_differences(rows))


def test_the_dense_formula_on_a_case_worked_by_hand():
    # Two prompts: tokens 0-1 and 2-4, token 3 not counted; feature 2 never fires.
    base_TF = np.array([[1, 0, 0], [3, 2, 0], [0, 4, 0], [9, 9, 0], [0, 0, 0]], dtype=float)
    tuned_TF = np.array([[2, 0, 0], [0, 2, 0], [6, 0, 0], [7, 7, 0], [2, 0, 0]], dtype=float)
    mask_T = np.array([True, True, True, False, True])
    rows = PairRows(to_rows(base_TF), to_rows(tuned_TF), np.array([0, 2, 5]), mask_T, 3)
    for moments in (naive.pair_moments(rows), fast_moments(rows)):
        assert (moments.num_tokens, moments.num_prompts) == (4, 2)
        expected = {
            "fired_base": [2, 2, 0],
            "fired_tuned": [3, 1, 0],
            "fired_both": [1, 1, 0],
            "sum_base": [4, 6, 0],
            "sum_tuned": [10, 2, 0],
            "sumsq_base": [10, 20, 0],
            "sumsq_tuned": [44, 4, 0],
            "cross": [2, 4, 0],
            "max_base": [3, 4, 0],
            "max_tuned": [6, 2, 0],
            "prompts_base": [1, 2, 0],
            "prompts_tuned": [2, 1, 0],
            "prompts_either": [2, 2, 0],
            "sum_d": [-1 + 4, 0 - 2, 0],  # (2 - 4) / 2 and 8 / 2; (2 - 2) / 2 and -4 / 2
            "sumsq_d": [1 + 16, 4, 0],
            "sum_r": [-0.5 + 1, -0.5, 0],
            "sumsq_r": [0.25 + 1, 0.25, 0],
        }
        assert {name: array.tolist() for name, array in moments.arrays().items()} == expected


def test_parts_merge_to_the_whole():
    lengths = [5, 1, 0, 7, 3, 4, 6, 2, 8]
    whole = random_pair(3, lengths, 40)
    bounds = whole.prompt_indptr_P1[[0, 3, 4, 7, 9]]
    parts = []
    for start, stop in itertools.pairwise(bounds):
        sides = []
        for side in (whole.base, whole.tuned):
            entries = slice(side.indptr_T1[start], side.indptr_T1[stop])
            indptr_T1 = side.indptr_T1[start : stop + 1] - side.indptr_T1[start]
            sides.append(SideRows(indptr_T1, side.index_N[entries], side.value_N[entries]))
        inside = (whole.prompt_indptr_P1 >= start) & (whole.prompt_indptr_P1 <= stop)
        prompts = whole.prompt_indptr_P1[inside] - start
        parts.append(fast_moments(PairRows(*sides, prompts, whole.mask_T[start:stop], 40)))
    expected = naive.pair_moments(whole)
    merged = reduce(merge, parts, empty(40))
    assert (merged.num_tokens, merged.num_prompts) == (expected.num_tokens, expected.num_prompts)
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(merged.arrays()[name], array, rtol=1e-12, atol=1e-13, err_msg=name)
        assert merged.arrays()[name].dtype == array.dtype, name


def test_a_group_has_the_moments_of_its_prompts_alone():
    lengths = [5, 1, 0, 7, 3]
    rows = random_pair(6, lengths, 40)
    everyone, nobody = np.ones(5, dtype=bool), np.zeros(5, dtype=bool)
    some, others = np.array([True, False, True, True, False]), np.array([False, False, True, True, True])
    groups_GP = np.stack([everyone, nobody, some, others])
    assert_same(naive.group_moments(rows, groups_GP)[0], naive.pair_moments(rows))
    assert_same(naive.group_moments(rows, groups_GP)[1], empty(40))
    for got, group_P in zip(group_moments(rows, groups_GP), groups_GP, strict=True):
        inside_T = np.repeat(group_P, lengths)
        assert_same(got, naive.pair_moments(replace(rows, mask_T=rows.mask_T & inside_T)))


def test_groups_of_other_prompts_are_refused():
    rows = random_pair(7, [2, 3], 10)
    for groups_GP in (np.ones((1, 3), dtype=bool), np.ones(2, dtype=bool), np.ones((1, 2), dtype=np.int64)):
        for function in (group_moments, naive.group_moments):
            with pytest.raises(AssertionError):
                function(rows, groups_GP)


def test_nothing_is_the_neutral_element():
    moments = fast_moments(random_pair(4, [3, 4], 10))
    assert_same(merge(moments, empty(10)), moments)
    assert_same(merge(empty(10), moments), moments)


def test_an_entry_whose_value_rounded_to_zero_still_fired():
    zero = SideRows(np.array([0, 1]), np.array([2], dtype=np.int32), np.zeros(1, dtype=np.float32))
    rows = PairRows(zero, to_rows(np.zeros((1, 4))), np.array([0, 1]), np.ones(1, dtype=bool), 4)
    assert fast_moments(rows).fired_base.tolist() == [0, 0, 1, 0]
    assert_same(fast_moments(rows), naive.pair_moments(rows))


def test_malformed_rows_are_refused_before_compiled_code_runs():
    rows = random_pair(5, [4, 4], 16, density=0.9)
    index_N = rows.base.index_N
    out_of_range, negative, descending = index_N.copy(), index_N.copy(), index_N[::-1].copy()
    out_of_range[-1], negative[0] = 16, -1
    short = rows.base.indptr_T1.copy()
    short[-1] -= 1
    broken = [
        replace(rows, base=rows.base._replace(index_N=out_of_range)),
        replace(rows, tuned=rows.base._replace(index_N=negative)),
        replace(rows, base=rows.base._replace(index_N=descending)),
        replace(rows, base=rows.base._replace(indptr_T1=short)),
        replace(rows, base=rows.base._replace(value_N=rows.base.value_N.astype(np.float64))),
        replace(rows, mask_T=rows.mask_T[:-1]),
        replace(rows, prompt_indptr_P1=np.array([0, 4, 3, 8])),
    ]
    for case in broken:
        for function in (fast_moments, fast_differences, naive.pair_moments):
            with pytest.raises(AssertionError):
                function(case)
