"""Per-prompt statistics of the residual stream: how far the tuned model's lies from the base's.

Legend: P prompts, D model width. Both runs' arrays come in suite order, so prompts match by row.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store import RunReader
from ft_audit.errors import StoreError

FloatArray = NDArray[np.float64]

# Rows widened to float64 at once.
BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ResidualDiff:
    """Differences of the activations at one hook; NaN for a prompt whose vectors are NaN in a run.

    `mean` is the prompt's mean vector over counted tokens, `last` the vector at its last token. A centred
    difference is the prompt's difference minus the mean difference over all prompts: training moves every
    prompt alike, and what is left is what moves this one.
    """

    norm_base_P: FloatArray  # mean norm of the residual over counted tokens
    norm_tuned_P: FloatArray
    norm_ratio_P: FloatArray  # tuned / base
    diff_norm_P: FloatArray  # norm of the difference of the mean vectors
    cosine_P: FloatArray  # between the mean vectors
    centred_norm_P: FloatArray  # norm of the centred difference of the mean vectors
    last_diff_norm_P: FloatArray
    last_cosine_P: FloatArray
    last_centred_norm_P: FloatArray
    mean_shift_D: FloatArray  # mean over prompts of the difference of the mean vectors
    last_shift_D: FloatArray
    shared_share: float  # squared norm of the mean difference / mean squared norm of the differences, 0 to 1

    def arrays(self) -> dict[str, FloatArray]:
        """Every statistic by name, the scalar as an array of one."""
        return {f.name: np.atleast_1d(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class _VectorDiff:
    diff_norm_P: FloatArray
    cosine_P: FloatArray
    centred_norm_P: FloatArray
    shift_D: FloatArray
    shared_share: float


def residual_diff(base: RunReader, tuned: RunReader, hook: str) -> ResidualDiff:
    """The statistics of one hook from the arrays `<hook>/{mean_PD,last_PD,norm_P}` of both runs.

    Raises StoreError when the runs do not hold the same prompts or the arrays not the same shape.
    """
    norm_base_P, norm_tuned_P = (a.astype(np.float64) for a in _both(base, tuned, f"{hook}/norm_P"))
    mean = _compare(*_both(base, tuned, f"{hook}/mean_PD"))
    last = _compare(*_both(base, tuned, f"{hook}/last_PD"))
    return ResidualDiff(
        norm_base_P=norm_base_P,
        norm_tuned_P=norm_tuned_P,
        norm_ratio_P=_divide(norm_tuned_P, norm_base_P),
        diff_norm_P=mean.diff_norm_P,
        cosine_P=mean.cosine_P,
        centred_norm_P=mean.centred_norm_P,
        last_diff_norm_P=last.diff_norm_P,
        last_cosine_P=last.cosine_P,
        last_centred_norm_P=last.centred_norm_P,
        mean_shift_D=mean.shift_D,
        last_shift_D=last.shift_D,
        shared_share=mean.shared_share,
    )


def _both(base: RunReader, tuned: RunReader, name: str) -> tuple[FloatArray, FloatArray]:
    ours, theirs = base.dense(name), tuned.dense(name)
    if not np.array_equal(np.sort(base.prompt_order), np.sort(tuned.prompt_order)):
        raise StoreError(
            f"runs {base.manifest.run_id} and {tuned.manifest.run_id} hold different prompts: "
            "precompute both over the same suite"
        )
    if ours.shape != theirs.shape:
        raise StoreError(
            f"array {name!r} has shape {ours.shape} in run {base.manifest.run_id} and {theirs.shape} in run "
            f"{tuned.manifest.run_id}: the two models must have the same width"
        )
    return ours, theirs


def _compare(base_PD: FloatArray, tuned_PD: FloatArray) -> _VectorDiff:
    num_prompts, width = base_PD.shape
    diff_sq_P, dot_P, base_sq_P, tuned_sq_P, centred_sq_P = (np.empty(num_prompts) for _ in range(5))
    sum_D, num_counted = np.zeros(width), 0
    for rows in _blocks(num_prompts):
        b_PD, t_PD = base_PD[rows].astype(np.float64), tuned_PD[rows].astype(np.float64)
        diff_PD = t_PD - b_PD
        diff_sq_P[rows], dot_P[rows] = _dot(diff_PD, diff_PD), _dot(b_PD, t_PD)
        base_sq_P[rows], tuned_sq_P[rows] = _dot(b_PD, b_PD), _dot(t_PD, t_PD)
        counted = np.isfinite(diff_sq_P[rows])
        sum_D += diff_PD[counted].sum(0)
        num_counted += int(counted.sum())
    shift_D = sum_D / max(num_counted, 1)
    for rows in _blocks(num_prompts):
        centred_PD = tuned_PD[rows].astype(np.float64) - base_PD[rows] - shift_D
        centred_sq_P[rows] = _dot(centred_PD, centred_PD)
    counted_P = np.isfinite(diff_sq_P)
    mean_sq = float(diff_sq_P[counted_P].mean()) if num_counted else 0.0
    return _VectorDiff(
        diff_norm_P=np.sqrt(diff_sq_P),
        cosine_P=_divide(dot_P, np.sqrt(base_sq_P * tuned_sq_P)),
        centred_norm_P=np.sqrt(centred_sq_P),
        shift_D=shift_D,
        shared_share=float(shift_D @ shift_D) / mean_sq if mean_sq > 0 else 0.0,
    )


def _blocks(num_rows: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, num_rows, BLOCK_ROWS)]


def _dot(a_PD: FloatArray, b_PD: FloatArray) -> FloatArray:
    dot_P: FloatArray = np.einsum("pd,pd->p", a_PD, b_PD)
    return dot_P


def _divide(a_P: FloatArray, b_P: FloatArray) -> FloatArray:
    """a / b, NaN where b is 0."""
    return np.where(b_P == 0, np.nan, a_P / np.where(b_P == 0, 1.0, b_P))
