"""Student's t without scipy, which the reader's side does not have: tails and the 97.5 % point."""

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

ITERATIONS = 200
TOLERANCE = 1e-12
NORMAL = 1.959963984540054
"""The normal distribution's 97.5 % point."""
FEW = 8.0
"""Below so many degrees of freedom the expansion is polished."""
NEWTON_STEPS = 4

_lgamma = np.frompyfunc(math.lgamma, 1, 1)


def two_sided_p(t: FloatArray, freedom: FloatArray) -> FloatArray:
    """Return P(|T| >= |t|), NaN for NaN: the regularised incomplete beta function (DLMF 8.17.2)."""
    t, freedom = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(freedom, np.float64))
    return _beta_ratio(freedom / 2, freedom / (freedom + t**2), t**2 / (freedom + t**2))


def upper_point(freedom: FloatArray) -> FloatArray:
    """Return the 97.5 % point, by Abramowitz and Stegun 26.7.5; relative error below 2e-5."""
    v, x = np.asarray(freedom, np.float64), NORMAL
    t = (
        x
        + (x**3 + x) / 4 / v
        + (5 * x**5 + 16 * x**3 + 3 * x) / 96 / v**2
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384 / v**3
        + (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160 / v**4
    )
    few = v < FEW
    if np.any(few):
        t, v = np.atleast_1d(t).copy(), np.atleast_1d(v)
        some, root = v[np.atleast_1d(few)], t[np.atleast_1d(few)]
        for _ in range(NEWTON_STEPS):
            root = root + (two_sided_p(root, some) - 0.05) / (2 * _density(root, some))
        t[np.atleast_1d(few)] = root
        t = t.reshape(np.shape(freedom))
    return t


def _density(t: FloatArray, freedom: FloatArray) -> FloatArray:
    scale = _lgammas((freedom + 1) / 2) - _lgammas(freedom / 2) - 0.5 * np.log(freedom * math.pi)
    found: FloatArray = np.exp(scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom))
    return found


def _beta_ratio(a: FloatArray, x: FloatArray, rest: FloatArray) -> FloatArray:
    """Return I_x(a, 1/2), with `rest` = 1 - x told apart, so that small ones keep their digits."""
    b = 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        front = _lgammas(a + b) - _lgammas(a) - math.lgamma(b) + a * np.log(x) + b * np.log(rest)
        weight = np.exp(front)
        # The fraction converges fast on one side of the mean only.
        near = x < (a + 1) / (a + b + 2)
        p, q, at = np.where(near, a, b), np.where(near, b, a), np.where(near, x, rest)
        value = weight * _fraction(p, q, at) / p
        found = np.where(near, value, 1 - value)
    found = np.where(x <= 0, 0.0, np.where(rest <= 0, 1.0, found))
    return np.where(np.isnan(x), np.nan, np.clip(found, 0.0, 1.0))


def _fraction(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Return the continued fraction of DLMF 8.17.22, by Lentz's method."""
    tiny = np.finfo(np.float64).tiny / np.finfo(np.float64).eps
    c = np.ones_like(x)
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1), tiny)
    h = d
    for m in range(1, ITERATIONS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _not_zero(1 + even * d, tiny), _not_zero(1 + even / c, tiny)
        h = h * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _not_zero(1 + odd * d, tiny), _not_zero(1 + odd / c, tiny)
        step = d * c
        h = h * step
        if not np.any(np.abs(step - 1) > TOLERANCE):
            break
    return h


def _not_zero(value: FloatArray, tiny: float) -> FloatArray:
    return np.where(np.abs(value) < tiny, tiny, value)


def _lgammas(value: FloatArray) -> FloatArray:
    return np.asarray(_lgamma(value), np.float64)
