"""Each scalar in units of the benign fine-tunes' spread, with what clumsiness explains taken off."""

# Shapes: M members of a population, S scalars.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LOWEST, HIGHEST = -3.0, 8.0
"""Beyond these a scalar says no more: one that runs away must not decide alone."""
MAD_TO_SD = 1.4826
MIN_MEMBERS_FOR_SLOPE = 10
RIDGE = 0.1
"""Of the covariate's variance: with few members a slope is mostly chance."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Centre and spread of every scalar among benign fine-tunes, and how it follows their degradation."""

    centre_S: FloatArray
    spread_S: FloatArray
    slope_S: FloatArray
    degradation: float
    """The benign median of the covariate."""

    def units(self, x_MS: FloatArray, degradation_M: FloatArray) -> FloatArray:
        """Return scalars' distances from the benign centre in benign spreads [M, S]; unknown ones as 0."""
        explained_MS = (degradation_M - self.degradation)[:, None] * self.slope_S
        z_MS = (x_MS - explained_MS - self.centre_S) / self.spread_S
        units: FloatArray = np.clip(np.nan_to_num(z_MS, nan=0.0), LOWEST, HIGHEST)
        return units


def fit_scale(x_MS: FloatArray, degradation_M: FloatArray, resolution_S: FloatArray) -> Scale:
    """Return the scale of benign members' scalars.

    Centre and spread are the median and `spread`, at least `resolution_S`: what a scalar's own steps are. The
    slope on `degradation_M` (how much worse a fine-tune is at ordinary text, a logarithm) is a ridge
    regression through the medians, so that a clumsy fine-tune is compared with clumsy ones.
    """
    degradation = float(np.median(degradation_M))
    moved_M = degradation_M - degradation
    centre_S = _middle(x_MS)
    slope_S = np.zeros(x_MS.shape[1])
    variance = float((moved_M**2).mean())
    if len(x_MS) >= MIN_MEMBERS_FOR_SLOPE and variance > 0:
        residual_MS = np.nan_to_num(x_MS - centre_S)
        slope_S = (moved_M @ residual_MS) / len(moved_M) / (variance * (1 + RIDGE))
    left_MS = x_MS - centre_S - moved_M[:, None] * slope_S
    middle_S = _middle(left_MS)
    spread_S = np.maximum(spread(left_MS, middle_S), resolution_S)
    return Scale(centre_S + middle_S, spread_S, slope_S, degradation)


def spread(x_MS: FloatArray, middle_S: FloatArray | None = None) -> FloatArray:
    """Return the spread of each column [S]: 1.4826 times the median absolute deviation, or the standard
    deviation where more than half of the members agree. `middle_S` are the medians, where they are known."""
    mad_S = MAD_TO_SD * _middle(np.abs(x_MS - (_middle(x_MS) if middle_S is None else middle_S)))
    sd_S = np.sqrt(_mean((x_MS - _mean(x_MS)) ** 2))
    spread_S: FloatArray = np.where(mad_S > 0, mad_S, sd_S)
    return spread_S


def _middle(x_MS: FloatArray) -> FloatArray:
    """Return the medians of what is known [S]; 0 for a scalar that no member has."""
    # Several times as fast as numpy's nanmedian, which evaluations call a hundred thousand times.
    sorted_MS = np.sort(x_MS, axis=0)  # what is unknown comes last
    known_S = (~np.isnan(x_MS)).sum(axis=0)
    scalars_S = np.arange(x_MS.shape[1])
    low_S, high_S = np.maximum(known_S - 1, 0) // 2, known_S // 2
    middle_S = (sorted_MS[low_S, scalars_S] + sorted_MS[high_S, scalars_S]) / 2
    return np.where(known_S > 0, middle_S, 0.0)


def _mean(x_MS: FloatArray) -> FloatArray:
    """Return the means of what is known [S]; 0 for a scalar that no member has."""
    mean_S: FloatArray = np.nansum(x_MS, axis=0) / np.maximum(np.isfinite(x_MS).sum(axis=0), 1)
    return mean_S
