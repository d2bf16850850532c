"""Adjusts p-values for how many features were tested together."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def family_q(p_F: FloatArray, tested_F: NDArray[np.bool_]) -> FloatArray:
    """Benjamini and Hochberg (1995) adjusted p-values within the family, NaN outside it."""
    q_F = np.full(len(p_F), np.nan)
    family_H = np.flatnonzero(tested_F & ~np.isnan(p_F))
    if not len(family_H):
        return q_F
    order_H = family_H[np.argsort(p_F[family_H], kind="stable")]
    scaled_H = p_F[order_H] * len(order_H) / np.arange(1, len(order_H) + 1)
    q_F[order_H] = np.minimum(np.minimum.accumulate(scaled_H[::-1])[::-1], 1.0)
    return q_F
