"""How differently a fine-tune moved two groups of prompts: differences in differences, prompts as the unit.

Legend: P prompts, F features, N pairs of a feature and a prompt.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.statistics.family import family_q
from ft_audit.engine.statistics.student_t import two_sided_p, upper_point
from ft_audit.engine.store.prompt_features import PromptFeatures

FloatArray = NDArray[np.float64]

MIN_FIRED = 10
"""A feature is tested if it fired in so many prompts, or in half of them where there are fewer."""


class Interval(NamedTuple):
    """A difference of means with its 95 % interval and its two-sided p; numbers or arrays alike."""

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    t: FloatArray


@dataclass(frozen=True, slots=True)
class GroupMeans:
    """Means over one group's prompts [F], and what each prompt adds to the difference of the models [N]."""

    num_prompts: int
    mean_base_F: FloatArray
    mean_tuned_F: FloatArray
    rate_base_F: FloatArray
    rate_tuned_F: FloatArray
    num_fired_F: NDArray[np.int64]
    feature_N: NDArray[np.int64]
    place_N: NDArray[np.int64]
    """The prompt's place in the group."""
    moved_N: FloatArray


def group_means(found: PromptFeatures, place_G: NDArray[np.int64]) -> GroupMeans:
    """Return the means over some of the prompts, named by place; each counts alike however long it is."""
    of_group = np.full(len(found.counted_G), -1)
    of_group[place_G] = np.arange(len(place_G))
    place_N = of_group[found.place_N]
    kept = np.flatnonzero(place_N >= 0)
    feature_N, width, size = found.feature_N[kept], found.num_features, len(place_G)

    def mean(value_N: FloatArray) -> FloatArray:
        return _sum(feature_N, value_N[kept], width) / size

    return GroupMeans(
        size,
        mean(found.mean_base_N),
        mean(found.mean_tuned_N),
        mean(found.rate_base_N),
        mean(found.rate_tuned_N),
        np.bincount(feature_N, minlength=width),
        feature_N,
        place_N[kept],
        (found.mean_tuned_N - found.mean_base_N)[kept],
    )


def contrast(a: GroupMeans, b: GroupMeans, *, paired: bool) -> tuple[Interval, FloatArray]:
    """Return each feature's difference in differences, a's less b's, and its q [F], NaN where not tested.

    Welch's t test over prompts, or with `paired` one over pairs: prompt i of a with prompt i of b. q is
    Benjamini and Hochberg's over the features that fired in enough prompts.
    """
    width = len(a.mean_base_F)
    if paired:
        found = _paired(a, b, width)
    else:
        sums = [(_sum(g.feature_N, g.moved_N, width), _sum(g.feature_N, g.moved_N**2, width)) for g in (a, b)]
        found = welch(*sums[0], a.num_prompts, *sums[1], b.num_prompts)
    needed = min(MIN_FIRED, (a.num_prompts + b.num_prompts) // 2)
    tested_F = (a.num_fired_F + b.num_fired_F >= needed) & np.isfinite(found.p)
    return found, family_q(found.p, tested_F)


def welch(
    sum_a: FloatArray, sumsq_a: FloatArray, num_a: int, sum_b: FloatArray, sumsq_b: FloatArray, num_b: int
) -> Interval:
    """Return a's mean less b's from sums and sums of squares (Welch 1947), for samples of two or more."""
    assert min(num_a, num_b) >= 2, (num_a, num_b)
    part_a, part_b = _variance(sum_a, sumsq_a, num_a) / num_a, _variance(sum_b, sumsq_b, num_b) / num_b
    squared = part_a + part_b
    freedom = squared**2 / np.maximum(
        part_a**2 / (num_a - 1) + part_b**2 / (num_b - 1), np.finfo(np.float64).tiny
    )
    return _interval(sum_a / num_a - sum_b / num_b, np.sqrt(squared), np.maximum(freedom, 1.0))


def _paired(a: GroupMeans, b: GroupMeans, width: int) -> Interval:
    assert a.num_prompts == b.num_prompts, (a.num_prompts, b.num_prompts)
    num = a.num_prompts
    key = np.concatenate([g.feature_N * num + g.place_N for g in (a, b)])
    order = np.argsort(key, kind="stable")
    key, moved = key[order], np.concatenate([a.moved_N, -b.moved_N])[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else key
    moved = np.add.reduceat(moved, starts) if len(key) else moved
    feature = key[starts] // num
    sum_F, sumsq_F = _sum(feature, moved, width), _sum(feature, moved**2, width)
    error_F = np.sqrt(_variance(sum_F, sumsq_F, num) / num)
    return _interval(sum_F / num, error_F, np.array(num - 1.0))


def _sum(feature_N: NDArray[np.int64], value_N: FloatArray, width: int) -> FloatArray:
    # Of nothing at all, bincount makes integers.
    return np.bincount(feature_N, value_N, width).astype(np.float64)


def _variance(sum_F: FloatArray, sumsq_F: FloatArray, num: int) -> FloatArray:
    """Return the sample variance; no smaller than the rounding of the two sums it is made of."""
    rounding_F = 4 * num * np.finfo(np.float64).eps * sumsq_F
    variance_F: FloatArray = np.maximum(sumsq_F - sum_F**2 / num, rounding_F) / (num - 1)
    return variance_F


def _interval(difference: FloatArray, error: FloatArray, freedom: FloatArray) -> Interval:
    difference, error, freedom = np.broadcast_arrays(difference, error, freedom)
    t, p, margin = np.full(error.shape, np.nan), np.full(error.shape, np.nan), np.zeros(error.shape)
    # Of a large dictionary's features few fire in the prompts of two groups, and the tails take long.
    moved = error > 0
    t[moved] = difference[moved] / error[moved]
    p[moved] = two_sided_p(t[moved], freedom[moved])
    margin[moved] = upper_point(freedom[moved]) * error[moved]
    return Interval(difference, difference - margin, difference + margin, p, t)
