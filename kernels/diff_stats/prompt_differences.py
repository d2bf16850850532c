"""Each prompt's mean activation difference in two compiled passes, without a dense array.

Legend: T tokens, P prompts, F features, N non-zeros.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.kernels.diff_stats.moments import IntArray
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows


class PromptDifferences(NamedTuple):
    """d_p as sparse rows: for prompt p the features either side fired, ascending; zeros may be among them."""

    indptr_P1: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.float64]


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
