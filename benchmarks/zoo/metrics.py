"""Figures of detection with intervals; the unit is the fine-tune, and those of one recipe hang together."""

# Shapes: A malicious members, B benign members.

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FloatArray = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def auroc(above_AB: FloatArray) -> float:
    """Return the share of pairs in which the malicious member scores higher, ties a half [A, B]."""
    return float(above_AB.mean()) if above_AB.size else float("nan")


def compare(malicious_AB: FloatArray, benign_AB: FloatArray) -> FloatArray:
    """Return per pair 1 where the malicious score is higher, 0.5 for a tie, else 0 [A, B]."""
    higher: FloatArray = (malicious_AB > benign_AB) + 0.5 * (malicious_AB == benign_AB)
    return higher


def clopper_pearson(successes: int, trials: int) -> Interval:
    """Return a share with its exact two-sided interval (Clopper and Pearson 1934); NaN for no trials."""
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    tail = (1 - LEVEL) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.ppf(1 - tail, successes + 1, trials - successes))
    return Interval(successes / trials, low, high)


def cluster_bootstrap(
    clusters_A: Sequence[str],
    clusters_B: Sequence[str],
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float],
    seed: int = 0,
) -> Interval:
    """Return a statistic of chosen members of both sides, with a percentile interval over whole clusters.

    Clusters (families of attacks, recipes of benign jobs) are drawn with replacement, and all members of a
    drawn one with it: fine-tunes of one family succeed and fail together (Field and Welsh 2007).
    """
    rng = np.random.default_rng(seed)
    everyone = statistic(np.arange(len(clusters_A)), np.arange(len(clusters_B)))
    sides = [_members(clusters_A), _members(clusters_B)]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [
            np.concatenate([side[i] for i in rng.integers(len(side), size=len(side))])
            if side
            else np.zeros(0, int)
            for side in sides
        ]
        drawn.append(statistic(*chosen))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(everyone, float(low), float(high))


def _members(clusters: Sequence[str]) -> list[NDArray[np.int64]]:
    names = np.array(clusters)
    return [np.flatnonzero(names == name) for name in sorted(set(clusters))]
