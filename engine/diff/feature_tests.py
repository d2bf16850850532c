"""Paired tests over prompts for every feature, with the effect sizes and the noise floor beside them.

Legend: P prompts, F features, H features that enter the family of tests.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ft_audit.engine.statistics.family import family_q
from ft_audit.kernels.diff_stats import PairMoments

FloatArray = NDArray[np.float64]

MIN_PROMPTS = 10
CONFIDENCE = 0.95


def feature_tests(
    moments: PairMoments, control: PairMoments | None = None, min_prompts: int = MIN_PROMPTS
) -> dict[str, FloatArray]:
    """The tests of every feature as arrays [F]; `control` is the base against itself in other batches.

    mean_diff        mean over prompts of d_p, the tuned minus base mean activation of the prompt
    z, p             paired t statistic over prompts and its two-sided p with P - 1 degrees of freedom
    q                Benjamini-Hochberg over the features that fired in `min_prompts` prompts, else NaN
    effect, _low, _high          d_z = mean / standard deviation of d_p, with a 95 % interval
    delta_rate, _low, _high      mean over prompts of the difference in firing rate, with a 95 % interval
    log2_ratio       log2 of (tuned firings + 1/2) / (base firings + 1/2): Jeffreys' pseudocount
    both_given_base  share of the base's firings at which the tuned model fires too, NaN if there are none
    delta_when_fired mean activation given firing, tuned minus base; NaN unless both fire somewhere
    aa_percentile    percentage of the control's |mean_diff| below this one's, over the same features;
                     NaN without a control, and for features outside the family of tests

    With fewer than two prompts z, p, q and the intervals are NaN.
    """
    num_prompts = moments.num_prompts
    mean_F, sd_F = _mean_and_sd(moments.sum_d, moments.sumsq_d, num_prompts)
    rate_F, rate_sd_F = _mean_and_sd(moments.sum_r, moments.sumsq_r, num_prompts)
    z_F = _ratio(mean_F, sd_F) * np.sqrt(num_prompts)
    p_F = 2 * stats.t.sf(np.abs(z_F), max(num_prompts - 1, 1))
    effect_F = _ratio(mean_F, sd_F)
    # Large-sample variance of a standardised mean, 1 / P + d_z^2 / (2 P): exact for normal d_p as P grows.
    effect_margin_F = _quantile(num_prompts) * np.sqrt((1 + effect_F**2 / 2) / max(num_prompts, 1))
    rate_margin_F = _quantile(num_prompts) * rate_sd_F / np.sqrt(max(num_prompts, 1))
    tested_F = moments.prompts_either >= min_prompts
    return {
        "mean_diff": mean_F,
        "z": z_F,
        "p": p_F,
        "q": family_q(p_F, tested_F),
        "effect": effect_F,
        "effect_low": effect_F - effect_margin_F,
        "effect_high": effect_F + effect_margin_F,
        "delta_rate": rate_F,
        "delta_rate_low": rate_F - rate_margin_F,
        "delta_rate_high": rate_F + rate_margin_F,
        "log2_ratio": np.log2((moments.fired_tuned + 0.5) / (moments.fired_base + 0.5)),
        "both_given_base": _share(moments.fired_both, moments.fired_base),
        "delta_when_fired": _share(moments.sum_tuned, moments.fired_tuned)
        - _share(moments.sum_base, moments.fired_base),
        "aa_percentile": _aa_percentile(mean_F, control, tested_F),
    }


def _mean_and_sd(sum_F: FloatArray, sumsq_F: FloatArray, num_prompts: int) -> tuple[FloatArray, FloatArray]:
    """Mean and sample standard deviation (divisor P - 1) from sums; sd is NaN below two prompts."""
    mean_F = sum_F / max(num_prompts, 1)
    if num_prompts < 2:
        return mean_F, np.full(len(mean_F), np.nan)
    squares_F = sumsq_F - sum_F * mean_F
    # Below this the difference of two sums is their rounding; a floor keeps z finite for a constant shift.
    rounding_F = 4 * num_prompts * np.finfo(np.float64).eps * sumsq_F
    return mean_F, np.sqrt(np.maximum(squares_F, rounding_F) / (num_prompts - 1))


def _ratio(mean_F: FloatArray, sd_F: FloatArray) -> FloatArray:
    """mean / sd, 0 where both are 0: a feature that never moved has no effect rather than an unknown one."""
    still_F = (mean_F == 0) & (sd_F == 0)
    return np.where(still_F, 0.0, mean_F / np.where(still_F, 1.0, sd_F))


def _share(part_F: NDArray[np.number], whole_F: NDArray[np.int64]) -> FloatArray:
    share_F: FloatArray = np.where(whole_F > 0, part_F / np.maximum(whole_F, 1), np.nan)
    return share_F


def _quantile(num_prompts: int) -> float:
    """The two-sided t quantile of the interval's confidence."""
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, num_prompts - 1)) if num_prompts > 1 else float("nan")


def _aa_percentile(
    mean_F: FloatArray, control: PairMoments | None, tested_F: NDArray[np.bool_]
) -> FloatArray:
    percentile_F = np.full(len(mean_F), np.nan)
    if control is None or not tested_F.any():
        return percentile_F
    assert control.num_features == len(mean_F), (control.num_features, len(mean_F))
    # Only features of the family: the many that never fire would fill the control with zeros.
    noise_H = np.sort(np.abs(control.sum_d[tested_F] / max(control.num_prompts, 1)))
    below_H = np.searchsorted(noise_H, np.abs(mean_F[tested_F]), side="left")
    percentile_F[tested_F] = 100 * below_H / len(noise_H)
    return percentile_F
