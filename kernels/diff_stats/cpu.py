"""The diff statistics in one compiled pass over both sides' sparse rows, without a dense array.

Legend: T tokens, P prompts, F features, N non-zeros. The order of every sum is fixed (tokens within a prompt,
prompts within a segment), so a segment gives the same bits wherever it runs. Activations are non-negative.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.kernels.diff_stats.moments import FloatArray, IntArray, PairMoments
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows

# Columns of a token accumulator.
SUM_B, SUM_T, SUMSQ_B, SUMSQ_T, CROSS, FIRED_B, FIRED_T, FIRED_BOTH, MAX_B, MAX_T = range(10)
NUM_SUMS = MAX_B  # the columns before the maxima add up
# Columns of the prompt totals.
SUM_D, SUMSQ_D, SUM_R, SUMSQ_R, PROMPTS_B, PROMPTS_T, PROMPTS_EITHER = range(7)


class PromptDifferences(NamedTuple):
    """d_p as sparse rows: for prompt p the features either side fired, ascending; zeros may be among them."""

    indptr_P1: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.float64]


def pair_moments(rows: PairRows) -> PairMoments:
    """The segment's moments; releases the GIL, so that segments run side by side in threads."""
    rows.check()
    token_F10 = np.zeros((rows.num_features, 10))
    prompt_F7 = np.zeros((rows.num_features, 7))
    num_tokens, num_prompts = _accumulate(
        rows.base, rows.tuned, rows.prompt_indptr_P1, rows.mask_T, token_F10, prompt_F7
    )

    def floats(table: np.ndarray, column: int) -> NDArray[np.float64]:
        return np.ascontiguousarray(table[:, column])

    def counts(table: np.ndarray, column: int) -> NDArray[np.int64]:
        return table[:, column].astype(np.int64)

    return PairMoments(
        num_tokens=int(num_tokens),
        num_prompts=int(num_prompts),
        fired_base=counts(token_F10, FIRED_B),
        fired_tuned=counts(token_F10, FIRED_T),
        fired_both=counts(token_F10, FIRED_BOTH),
        sum_base=floats(token_F10, SUM_B),
        sum_tuned=floats(token_F10, SUM_T),
        sumsq_base=floats(token_F10, SUMSQ_B),
        sumsq_tuned=floats(token_F10, SUMSQ_T),
        cross=floats(token_F10, CROSS),
        max_base=floats(token_F10, MAX_B),
        max_tuned=floats(token_F10, MAX_T),
        prompts_base=counts(prompt_F7, PROMPTS_B),
        prompts_tuned=counts(prompt_F7, PROMPTS_T),
        prompts_either=counts(prompt_F7, PROMPTS_EITHER),
        sum_d=floats(prompt_F7, SUM_D),
        sumsq_d=floats(prompt_F7, SUMSQ_D),
        sum_r=floats(prompt_F7, SUM_R),
        sumsq_r=floats(prompt_F7, SUMSQ_R),
    )


def prompt_differences(rows: PairRows) -> PromptDifferences:
    """Each prompt's mean activation difference, tuned minus base; none without counted tokens."""
    rows.check()
    indptr_P1 = np.zeros(len(rows.prompt_indptr_P1), dtype=np.int64)
    stamp_F = np.full(rows.num_features, -1, dtype=np.int64)
    _count_touched(rows.base, rows.tuned, rows.prompt_indptr_P1, rows.mask_T, stamp_F, indptr_P1)
    np.cumsum(indptr_P1, out=indptr_P1)
    index_N = np.empty(indptr_P1[-1], dtype=np.int32)
    value_N = np.empty(indptr_P1[-1], dtype=np.float64)
    out = PromptDifferences(indptr_P1, index_N, value_N)
    stamp_F.fill(-1)
    _fill_differences(rows.base, rows.tuned, rows.prompt_indptr_P1, rows.mask_T, stamp_F, out)
    return out


@njit(cache=True, nogil=True)
def _accumulate(
    base: SideRows,
    tuned: SideRows,
    prompt_indptr_P1: IntArray,
    mask_T: NDArray[np.bool_],
    token_F10: FloatArray,
    prompt_F7: FloatArray,
) -> tuple[int, int]:
    # A prompt touches few features: their accumulators lie side by side and stay in the cache, whatever F is.
    slot_F = np.full(len(token_F10), -1, dtype=np.int32)
    touched = np.empty(len(token_F10), dtype=np.int32)
    scratch_F10 = np.empty(token_F10.shape)
    num_tokens = 0
    num_prompts = 0
    for p in range(len(prompt_indptr_P1) - 1):
        counted = 0
        num_touched = 0
        for t in range(prompt_indptr_P1[p], prompt_indptr_P1[p + 1]):
            if mask_T[t]:
                counted += 1
                num_touched = _add_token(base, tuned, t, slot_F, touched, num_touched, scratch_F10)
        if counted > 0:
            num_tokens += counted
            num_prompts += 1
            _close_prompt(counted, slot_F, touched[:num_touched], scratch_F10, token_F10, prompt_F7)
    return num_tokens, num_prompts


@njit(cache=True, nogil=True)
def _add_token(
    base: SideRows,
    tuned: SideRows,
    t: int,
    slot_F: NDArray[np.int32],
    touched: NDArray[np.int32],
    num_touched: int,
    scratch_F10: FloatArray,
) -> int:
    i, i_end = base.indptr_T1[t], base.indptr_T1[t + 1]
    j, j_end = tuned.indptr_T1[t], tuned.indptr_T1[t + 1]
    while i < i_end or j < j_end:
        in_base = i < i_end and (j >= j_end or base.index_N[i] <= tuned.index_N[j])
        in_tuned = j < j_end and (i >= i_end or tuned.index_N[j] <= base.index_N[i])
        f = base.index_N[i] if in_base else tuned.index_N[j]
        slot = slot_F[f]
        if slot < 0:
            slot = num_touched
            slot_F[f] = slot
            touched[slot] = f
            scratch_F10[slot] = 0.0
            num_touched += 1
        row = scratch_F10[slot]
        b = 0.0
        if in_base:
            b = np.float64(base.value_N[i])
            row[SUM_B] += b
            row[SUMSQ_B] += b * b
            row[FIRED_B] += 1.0
            row[MAX_B] = max(row[MAX_B], b)
            i += 1
        if in_tuned:
            v = np.float64(tuned.value_N[j])
            row[SUM_T] += v
            row[SUMSQ_T] += v * v
            row[FIRED_T] += 1.0
            row[MAX_T] = max(row[MAX_T], v)
            j += 1
            if in_base:
                row[CROSS] += b * v
                row[FIRED_BOTH] += 1.0
    return num_touched


@njit(cache=True, nogil=True)
def _close_prompt(
    counted: int,
    slot_F: NDArray[np.int32],
    touched: NDArray[np.int32],
    scratch_F10: FloatArray,
    token_F10: FloatArray,
    prompt_F7: FloatArray,
) -> None:
    for slot in range(len(touched)):
        f = touched[slot]
        slot_F[f] = -1
        row = scratch_F10[slot]
        d = (row[SUM_T] - row[SUM_B]) / counted
        r = (row[FIRED_T] - row[FIRED_B]) / counted
        total = prompt_F7[f]
        total[SUM_D] += d
        total[SUMSQ_D] += d * d
        total[SUM_R] += r
        total[SUMSQ_R] += r * r
        total[PROMPTS_B] += row[FIRED_B] > 0.0
        total[PROMPTS_T] += row[FIRED_T] > 0.0
        total[PROMPTS_EITHER] += 1.0
        for column in range(NUM_SUMS):
            token_F10[f, column] += row[column]
        for column in range(NUM_SUMS, 10):
            token_F10[f, column] = max(token_F10[f, column], row[column])


@njit(cache=True, nogil=True)
def _count_touched(
    base: SideRows,
    tuned: SideRows,
    prompt_indptr_P1: IntArray,
    mask_T: NDArray[np.bool_],
    stamp_F: IntArray,
    counts_P1: IntArray,
) -> None:
    for p in range(len(prompt_indptr_P1) - 1):
        for t in range(prompt_indptr_P1[p], prompt_indptr_P1[p + 1]):
            if mask_T[t]:
                for side in (base, tuned):
                    for i in range(side.indptr_T1[t], side.indptr_T1[t + 1]):
                        counts_P1[p + 1] += stamp_F[side.index_N[i]] != p
                        stamp_F[side.index_N[i]] = p


@njit(cache=True, nogil=True)
def _fill_differences(
    base: SideRows,
    tuned: SideRows,
    prompt_indptr_P1: IntArray,
    mask_T: NDArray[np.bool_],
    stamp_F: IntArray,
    out: PromptDifferences,
) -> None:
    sum_F2 = np.zeros((len(stamp_F), 2))
    for p in range(len(prompt_indptr_P1) - 1):
        counted = 0
        n = out.indptr_P1[p]
        for t in range(prompt_indptr_P1[p], prompt_indptr_P1[p + 1]):
            if not mask_T[t]:
                continue
            counted += 1
            for column, side in enumerate((base, tuned)):
                for i in range(side.indptr_T1[t], side.indptr_T1[t + 1]):
                    f = side.index_N[i]
                    if stamp_F[f] != p:
                        stamp_F[f] = p
                        sum_F2[f] = 0.0
                        out.index_N[n] = f
                        n += 1
                    sum_F2[f, column] += np.float64(side.value_N[i])
        out.index_N[out.indptr_P1[p] : n].sort()
        for k in range(out.indptr_P1[p], n):
            f = out.index_N[k]
            out.value_N[k] = (sum_F2[f, 1] - sum_F2[f, 0]) / counted
