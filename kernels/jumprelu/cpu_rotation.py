"""Owns the rotation that makes a row fit for eight bits: large dimensions are spread over all of it.

A residual stream has a few dimensions dozens of times larger than the rest, and a scale that fits them leaves
the rest few of the 256 steps. Random signs and a Walsh-Hadamard transform over blocks, twice with a random
permutation between (as QuaRot does for weights and activations, arXiv 2404.00456), is an orthogonal map that
evens them out in D log D additions. Both rounds together scale by the block size, a power of two: exact.

Legend of shapes: T tokens, D d_model.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.kernels.jumprelu.cpu_kernels import widen

SEED = 0
# A level of additions rounds once, relative to the norm; at most 2 x 30 levels, subtraction and scaling fit.
ROTATION_ERROR = 64 * 2.0**-24


class Rotation(NamedTuple):
    """Random signs of both rounds and the permutation between them; a named tuple for compiled functions."""

    sign_D: NDArray[np.float32]
    order_D: NDArray[np.int64]
    second_sign_D: NDArray[np.float32]


def draw_rotation(d_in: int) -> Rotation:
    """The rotation of rows of `d_in`: always the same."""
    rng = np.random.default_rng(SEED)
    signs_2D = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(2, d_in))
    return Rotation(signs_2D[0].copy(), rng.permutation(d_in), signs_2D[1].copy())


@njit(cache=True, nogil=True)
def _hadamard(y_D: NDArray[np.floating], block: int) -> None:
    """Transform along the slow axis of `y_D` seen as [block, D / block]: every step runs over neighbours."""
    run = y_D.shape[0] // block
    while run < y_D.shape[0]:
        for start in range(0, y_D.shape[0], 2 * run):
            a, b = y_D[start : start + run], y_D[start + run : start + 2 * run]
            for k in range(run):
                low, high = a[k], b[k]
                a[k] = low + high
                b[k] = low - high
        run *= 2


@njit(cache=True, nogil=True)
def rotate(y_D: NDArray[np.floating], rotation: Rotation, spare_D: NDArray[np.floating]) -> None:
    """Rotate `y_D` in place, in its own precision; `spare_D` is overwritten."""
    d_in = y_D.shape[0]
    block = d_in & -d_in
    for d in range(d_in):
        spare_D[d] = y_D[d] * rotation.sign_D[d]
    _hadamard(spare_D, block)
    for d in range(d_in):
        y_D[d] = spare_D[rotation.order_D[d]] * rotation.second_sign_D[d]
    _hadamard(y_D, block)
    scale = y_D.dtype.type(1.0 / block)
    for d in range(d_in):
        y_D[d] *= scale


@njit(cache=True, nogil=True)
def rotate_rows(y_TD: NDArray[np.floating], rotation: Rotation) -> None:
    """Rotate every row in place."""
    spare_D = np.empty_like(y_TD[0])
    for t in range(y_TD.shape[0]):
        rotate(y_TD[t], rotation, spare_D)


@njit(cache=True, nogil=True)
def quantise_rows(
    x_TD: NDArray[np.generic],
    centre_D: NDArray[np.float32],
    rotation: Rotation,
    coarse_TD: NDArray[np.generic],
    factor_T3: NDArray[np.float32],
) -> bool:
    """Write each row, centred and rotated, in eight bits, and what `scan` needs; False on NaN or infinity.

    With s the row's scale: `factor_T3` gets 1 / s, |x^| / s and |x - x^| / s, the rotation's own rounding
    error included in the last.
    """
    num_rows, d_in = x_TD.shape
    y_D = np.empty(d_in, dtype=np.float32)
    spare_D = np.empty(d_in, dtype=np.float32)
    for t in range(num_rows):
        for d in range(d_in):
            y_D[d] = widen(x_TD[t, d]) - centre_D[d]
        rotate(y_D, rotation, spare_D)
        largest = np.float32(0.0)
        squares = 0.0
        for d in range(d_in):
            largest = max(largest, abs(y_D[d]))
            squares += np.float64(y_D[d]) * np.float64(y_D[d])
        if not np.isfinite(squares):
            return False
        scale = largest / np.float32(127.0) if largest > 1e-30 else np.float32(1.0)
        inverse = np.float32(1.0) / scale
        coarse_squares, rest_squares = 0.0, 0.0
        for d in range(d_in):
            step = np.rint(y_D[d] * inverse)
            coarse_TD[t, d] = np.int8(step)
            rest = np.float64(y_D[d]) - np.float64(step) * np.float64(scale)
            coarse_squares += np.float64(step) * np.float64(step)
            rest_squares += rest * rest
        rounding = np.sqrt(rest_squares) + ROTATION_ERROR * np.sqrt(squares)
        factor_T3[t, 0] = 1.0 / np.float64(scale)
        factor_T3[t, 1] = np.sqrt(coarse_squares)
        factor_T3[t, 2] = rounding / np.float64(scale)
    return True
