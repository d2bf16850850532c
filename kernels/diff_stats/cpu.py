"""The diff statistics in one compiled pass over both sides' sparse rows, without a dense array.

Legend: T tokens, P prompts, F features, G groups of prompts, C columns. The order of every sum is fixed
(tokens within a prompt, prompts as they come), so the same rows give the same bits wherever and in whatever
batches they are added. Activations are non-negative.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.kernels.diff_stats.moments import ARRAY_NAMES, FloatArray, IntArray, PairMoments, from_table
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows

# Columns of a feature's totals, in the order of ARRAY_NAMES; the first ten are also those of one prompt.
FIRED_B, FIRED_T, FIRED_BOTH, SUM_B, SUM_T, SUMSQ_B, SUMSQ_T, CROSS, MAX_B, MAX_T = range(10)
PROMPTS_B, PROMPTS_T, PROMPTS_EITHER, SUM_D, SUMSQ_D, SUM_R, SUMSQ_R = range(10, len(ARRAY_NAMES))
NUM_SUMS = MAX_B  # the columns before the maxima add up
# Beside them in a prompt's record: base's value at the last token on which it fired, and that token, from 1.
LAST_B, LAST_TOKEN = range(10, 12)


class CpuTotals:
    """The moments of groups of prompts, added up batch after batch."""

    def __init__(self, num_features: int, num_groups: int) -> None:
        self._total_GFC = np.zeros((num_groups, num_features, len(ARRAY_NAMES)))
        self._counted_G2 = np.zeros((num_groups, 2), dtype=np.int64)

    def add(self, rows: PairRows, groups_GP: NDArray[np.bool_]) -> None:
        """Add whole prompts; releases the GIL, so that segments run side by side in threads."""
        rows.check()
        rows.check_groups(groups_GP)
        assert (len(groups_GP), rows.num_features) == self._total_GFC.shape[:2]
        _accumulate(
            rows.base,
            rows.tuned,
            rows.prompt_indptr_P1,
            rows.mask_T,
            groups_GP,
            self._total_GFC,
            self._counted_G2,
        )

    def result(self) -> list[PairMoments]:
        """The moments of each group so far."""
        return [
            from_table(int(num_tokens), int(num_prompts), total_FC.T)
            for (num_tokens, num_prompts), total_FC in zip(self._counted_G2, self._total_GFC, strict=True)
        ]


def group_moments(rows: PairRows, groups_GP: NDArray[np.bool_]) -> list[PairMoments]:
    """Each group's moments: those of the segment with every other prompt's tokens masked out."""
    totals = CpuTotals(rows.num_features, len(groups_GP))
    totals.add(rows, groups_GP)
    return totals.result()


def pair_moments(rows: PairRows) -> PairMoments:
    """The segment's moments, over all its prompts."""
    everyone_1P = np.ones((1, len(rows.prompt_indptr_P1) - 1), dtype=np.bool_)
    return group_moments(rows, everyone_1P)[0]


@njit(cache=True, nogil=True)
def _accumulate(
    base: SideRows,
    tuned: SideRows,
    prompt_indptr_P1: IntArray,
    mask_T: NDArray[np.bool_],
    groups_GP: NDArray[np.bool_],
    total_GFC: FloatArray,
    counted_G2: IntArray,
) -> None:
    # A prompt touches few features: their records lie side by side and stay in the cache, whatever F is.
    num_features = total_GFC.shape[1]
    slot_F = np.full(num_features, -1, dtype=np.int32)
    touched_F = np.empty(num_features, dtype=np.int32)
    record_FC = np.empty((num_features, 12))
    for p in range(len(prompt_indptr_P1) - 1):
        if not groups_GP[:, p].any():
            continue
        counted = 0
        num_touched = 0
        for t in range(prompt_indptr_P1[p], prompt_indptr_P1[p + 1]):
            if mask_T[t]:
                counted += 1
                num_touched = _find_slots(base, t, slot_F, touched_F, num_touched, record_FC)
                num_touched = _find_slots(tuned, t, slot_F, touched_F, num_touched, record_FC)
                _add_token(base, tuned, t, slot_F, record_FC)
        if counted == 0:
            continue
        for g in range(len(groups_GP)):
            if groups_GP[g, p]:
                counted_G2[g, 0] += counted
                counted_G2[g, 1] += 1
                _add_prompt(counted, touched_F[:num_touched], record_FC, total_GFC[g])
        for slot in range(num_touched):
            slot_F[touched_F[slot]] = -1


@njit(cache=True, nogil=True)
def _find_slots(
    side: SideRows,
    t: int,
    slot_F: NDArray[np.int32],
    touched_F: NDArray[np.int32],
    num_touched: int,
    record_FC: FloatArray,
) -> int:
    """Give each feature of the token a record; returns how many the prompt has by now."""
    for i in range(side.indptr_T1[t], side.indptr_T1[t + 1]):
        f = side.index_N[i]
        if slot_F[f] < 0:
            slot_F[f] = num_touched
            touched_F[num_touched] = f
            record_FC[num_touched] = 0.0
            num_touched += 1
    return num_touched


@njit(cache=True, nogil=True)
def _add_token(
    base: SideRows, tuned: SideRows, t: int, slot_F: NDArray[np.int32], record_FC: FloatArray
) -> None:
    # One side after the other: walking both at once branches on which is behind, which no processor predicts.
    for i in range(base.indptr_T1[t], base.indptr_T1[t + 1]):
        record = record_FC[slot_F[base.index_N[i]]]
        b = np.float64(base.value_N[i])
        record[FIRED_B] += 1.0
        record[SUM_B] += b
        record[SUMSQ_B] += b * b
        record[MAX_B] = max(record[MAX_B], b)
        record[LAST_B] = b
        record[LAST_TOKEN] = t + 1
    for j in range(tuned.indptr_T1[t], tuned.indptr_T1[t + 1]):
        record = record_FC[slot_F[tuned.index_N[j]]]
        v = np.float64(tuned.value_N[j])
        both = 1.0 if record[LAST_TOKEN] == t + 1 else 0.0
        record[FIRED_T] += 1.0
        record[SUM_T] += v
        record[SUMSQ_T] += v * v
        record[MAX_T] = max(record[MAX_T], v)
        record[FIRED_BOTH] += both
        record[CROSS] += both * (record[LAST_B] * v)  # adding 0.0 leaves the sum's bits


@njit(cache=True, nogil=True)
def _add_prompt(
    counted: int, touched: NDArray[np.int32], record_FC: FloatArray, total_FC: FloatArray
) -> None:
    for slot in range(len(touched)):
        record = record_FC[slot]
        total = total_FC[touched[slot]]
        for column in range(NUM_SUMS):
            total[column] += record[column]
        for column in range(MAX_B, MAX_T + 1):
            total[column] = max(total[column], record[column])
        d = (record[SUM_T] - record[SUM_B]) / counted
        r = (record[FIRED_T] - record[FIRED_B]) / counted
        total[PROMPTS_B] += record[FIRED_B] > 0.0
        total[PROMPTS_T] += record[FIRED_T] > 0.0
        total[PROMPTS_EITHER] += 1.0
        total[SUM_D] += d
        total[SUMSQ_D] += d * d
        total[SUM_R] += r
        total[SUMSQ_R] += r * r
