"""The diff statistics as dense numpy formulas: the ground truth of every faster path."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ft_audit.kernels.diff_stats.moments import PairMoments, empty
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows


def dense(side: SideRows, num_features: int) -> NDArray[np.float64]:
    """The side's activations as a dense [T, F] array, 0 where nothing fired."""
    num_tokens = len(side.indptr_T1) - 1
    x_TF = np.zeros((num_tokens, num_features))
    token_N = np.repeat(np.arange(num_tokens), np.diff(side.indptr_T1))
    x_TF[token_N, side.index_N] = side.value_N
    return x_TF


def fired(side: SideRows, num_features: int) -> NDArray[np.float64]:
    """1 where the side stores an entry, else 0, [T, F]; an entry whose value rounded to 0 still fired."""
    ones_N = np.ones(len(side.index_N), dtype=np.float32)
    return dense(SideRows(side.indptr_T1, side.index_N, ones_N), num_features)


def in_order(x_nF: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over rows, one row after another; numpy's own sum of a single column goes by pairs."""
    sum_F: NDArray[np.float64] = np.cumsum(x_nF, axis=0)[-1]
    return sum_F


def pair_moments(rows: PairRows) -> PairMoments:
    """The segment's moments; prompts are added one after another, as the fast path adds them."""
    rows.check()
    out = empty(rows.num_features)
    b_TF, t_TF = dense(rows.base, rows.num_features), dense(rows.tuned, rows.num_features)
    fb_TF, ft_TF = fired(rows.base, rows.num_features), fired(rows.tuned, rows.num_features)
    num_tokens = num_prompts = 0
    for start, stop in zip(rows.prompt_indptr_P1[:-1], rows.prompt_indptr_P1[1:], strict=True):
        counted = start + np.flatnonzero(rows.mask_T[start:stop])
        if not len(counted):
            continue
        num_tokens, num_prompts = num_tokens + len(counted), num_prompts + 1
        b, t, fb, ft = b_TF[counted], t_TF[counted], fb_TF[counted], ft_TF[counted]
        d_F = (in_order(t) - in_order(b)) / len(counted)
        r_F = (ft.sum(0) - fb.sum(0)) / len(counted)
        terms = {
            "fired_base": fb.sum(0), "fired_tuned": ft.sum(0), "fired_both": (fb * ft).sum(0),
            "sum_base": in_order(b), "sum_tuned": in_order(t),
            "sumsq_base": in_order(b * b), "sumsq_tuned": in_order(t * t), "cross": in_order(b * t),
            "prompts_base": fb.any(0), "prompts_tuned": ft.any(0), "prompts_either": (fb + ft).any(0),
            "sum_d": d_F, "sumsq_d": d_F * d_F, "sum_r": r_F, "sumsq_r": r_F * r_F,
        }  # fmt: skip
        for name, term_F in terms.items():
            total_F = getattr(out, name)
            total_F += term_F.astype(total_F.dtype)
        np.maximum(out.max_base, b.max(0), out=out.max_base)
        np.maximum(out.max_tuned, t.max(0), out=out.max_tuned)
    return PairMoments(num_tokens, num_prompts, **out.arrays())


def group_moments(rows: PairRows, groups_GP: NDArray[np.bool_]) -> list[PairMoments]:
    """Each group's moments: those of the segment with every other prompt's tokens masked out."""
    rows.check_groups(groups_GP)
    length_P = np.diff(rows.prompt_indptr_P1)
    return [
        pair_moments(replace(rows, mask_T=rows.mask_T & np.repeat(group_P, length_P)))
        for group_P in groups_GP
    ]


def prompt_differences(rows: PairRows) -> NDArray[np.float64]:
    """d_p of every prompt and feature, dense [P, F]; 0 for a prompt none of whose tokens counts."""
    rows.check()
    difference_TF = dense(rows.tuned, rows.num_features) - dense(rows.base, rows.num_features)
    d_PF = np.zeros((len(rows.prompt_indptr_P1) - 1, rows.num_features))
    for p, (start, stop) in enumerate(
        zip(rows.prompt_indptr_P1[:-1], rows.prompt_indptr_P1[1:], strict=True)
    ):
        counted = start + np.flatnonzero(rows.mask_T[start:stop])
        if len(counted):
            d_PF[p] = difference_TF[counted].sum(0) / len(counted)
    return d_PF


class NaiveTotals:
    """Keeps every batch, and computes from all of them as one segment."""

    def __init__(self, num_features: int, num_groups: int) -> None:
        self._batches = [PairRows.nothing(num_features)]
        self._groups = [np.empty((num_groups, 0), dtype=np.bool_)]

    def add(self, rows: PairRows, groups_GP: NDArray[np.bool_]) -> None:
        """Add whole prompts; the arrays are kept, not copied."""
        rows.check_groups(groups_GP)
        self._batches.append(rows)
        self._groups.append(groups_GP)

    def result(self) -> list[PairMoments]:
        """The moments of each group so far."""
        return group_moments(PairRows.concatenate(self._batches), np.concatenate(self._groups, axis=1))
