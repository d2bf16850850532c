"""Singular values and top directions of one weight change: exact where that is cheap, else sketched.

Shapes: M rows, N columns, R rank of a factored change, K directions kept, S singular values kept.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_VALUES = 16
EXACT_SIDE = 1024  # the eigenvalues of a Gram matrix this wide take a quarter of a second
OVERSAMPLE, POWER_STEPS, SEED = 16, 3, 0
GRAM_ROWS = 4096
# Relative to the largest; below that a singular value of float32 data is rounding.
NEGLIGIBLE = 1e-6

FloatArray = NDArray[np.float64]


class Spectrum(NamedTuple):
    """The shape of one change. Singular vectors are signed so that the left one has its largest entry > 0."""

    values_S: FloatArray
    """The largest singular values, falling, padded with zeros."""
    left_KM: NDArray[np.float32]
    """Unit directions over the rows, of the largest singular values."""
    right_KN: NDArray[np.float32]
    """The same over the columns."""
    stable_rank: float
    """||dW||_F^2 / ||dW||_2^2 (Rudelson and Vershynin 2007)."""
    effective_rank: float
    """The participation ratio of the squared singular values: (sum s^2)^2 / sum s^4."""
    decay_exponent: float
    """a of the power law s_i ~ i^-a fitted to the kept values; NaN for fewer than three."""
    error: float
    """The largest ||dW v - s u|| of the kept directions over s_1; 0 where the decomposition is exact."""

    def energy(self, count: int, total: float) -> float:
        """Return which share of ||dW||_F^2 = `total` the `count` largest singular values hold."""
        return min(1.0, float((self.values_S[:count] ** 2).sum()) / total)


def dense_spectrum(change_MN: Tensor, num_directions: int) -> Spectrum:
    """Return the spectrum of a float32 matrix that is not zero.

    Up to `EXACT_SIDE` on the shorter side from the Gram matrix in float64; above it by the randomised
    subspace iteration of Halko, Martinsson and Tropp (2011), algorithms 4.4 and 5.1, with a fixed seed, and
    the effective rank by Hutch++ (Meyer et al. 2021).
    """
    tall_XY = change_MN if change_MN.shape[0] >= change_MN.shape[1] else change_MN.T
    exact = tall_XY.shape[1] <= EXACT_SIDE
    values, over_X, over_Y, fourth, error = (_exact if exact else _sketched)(tall_XY, num_directions)
    left, right = (over_X, over_Y) if tall_XY is change_MN else (over_Y, over_X)
    square = float(torch.linalg.vector_norm(change_MN, dtype=torch.float64)) ** 2
    return _spectrum(values, left, right, square, fourth, error)


def factored_spectrum(left_MR: Tensor, right_RN: Tensor, num_directions: int) -> Spectrum:
    """Return the exact spectrum of `left_MR @ right_RN`, not zero, without making the product.

    With left = Q1 R1 and right^T = Q2 R2 the small R1 R2^T has the singular values of the product, and its
    vectors turned by Q1 and Q2.
    """
    q1_MR, r1 = torch.linalg.qr(left_MR.double())
    q2_NR, r2 = torch.linalg.qr(right_RN.double().T)
    u, values, vh = torch.linalg.svd(r1 @ r2.T)
    kept = min(num_directions, len(values))
    left_MK, right_NK = q1_MR @ u[:, :kept], q2_NR @ vh[:kept].T
    square = float(values.square().sum())
    return _spectrum(values, left_MK, right_NK, square, float(values.pow(4).sum()), 0.0)


def _exact(tall_XY: Tensor, num_directions: int) -> tuple[Tensor, Tensor, Tensor, float, float]:
    gram_YY = torch.zeros(tall_XY.shape[1], tall_XY.shape[1], dtype=torch.float64)
    for rows in tall_XY.split(GRAM_ROWS):
        part = rows.double()
        gram_YY.addmm_(part.T, part)
    # Not scipy's, which can take the upper ones alone: its own threads would fight with the pool's.
    squares, vectors_YY = torch.linalg.eigh(gram_YY)
    values = squares.clamp(min=0).sqrt().flip(0)
    over_YK = vectors_YY.flip(1)[:, :num_directions]
    over_XK = _unit(torch.cat([rows.double() @ over_YK for rows in tall_XY.split(GRAM_ROWS)]), values[0])
    return values, over_XK, over_YK, float(gram_YY.square().sum()), 0.0


def _sketched(tall_XY: Tensor, num_directions: int) -> tuple[Tensor, Tensor, Tensor, float, float]:
    generator = torch.Generator().manual_seed(SEED)
    num_probes = NUM_VALUES + OVERSAMPLE
    basis_YL = torch.randn(tall_XY.shape[1], num_probes, generator=generator)
    for _ in range(POWER_STEPS):
        basis_XL = torch.linalg.qr(tall_XY @ basis_YL).Q
        basis_YL = torch.linalg.qr(tall_XY.T @ basis_XL).Q
    basis_XL = torch.linalg.qr(tall_XY @ basis_YL).Q
    u, values, vh = torch.linalg.svd(basis_XL.T @ tall_XY, full_matrices=False)
    over_XK, over_YK = basis_XL @ u[:, :num_directions], vh[:num_directions].T
    error = float((tall_XY @ over_YK - over_XK * values[:num_directions]).norm(dim=0).max() / values[0])
    # Hutch++: the fourth powers on the found subspace exactly, the rest from probes orthogonal to it.
    probes_YL = torch.randn(tall_XY.shape[1], num_probes, generator=generator)
    probes_YL -= vh.T @ (vh @ probes_YL)
    on = (tall_XY.T @ (tall_XY @ vh.T)).double().square().sum()
    off = (tall_XY.T @ (tall_XY @ probes_YL)).double().square().sum() / num_probes
    return values.double(), over_XK.double(), over_YK.double(), float(on + off), error


def _unit(columns_XK: Tensor, largest: Tensor) -> Tensor:
    """Return the columns at unit length; one of a negligible singular value is zero."""
    norms_K = columns_XK.norm(dim=0)
    return torch.where(norms_K > NEGLIGIBLE * largest, columns_XK / norms_K, torch.zeros_like(columns_XK))


def _spectrum(
    values: Tensor, left_MK: Tensor, right_NK: Tensor, square: float, fourth: float, error: float
) -> Spectrum:
    # Nothing can be said of the directions of a singular value that is only rounding.
    real_K = (values[: left_MK.shape[1]] > NEGLIGIBLE * values[0]).double()
    signs_K = left_MK.gather(0, left_MK.abs().argmax(dim=0, keepdim=True))[0].sign() * real_K
    values_S = np.zeros(NUM_VALUES)
    values_S[: min(len(values), NUM_VALUES)] = values[:NUM_VALUES].numpy()
    return Spectrum(
        values_S,
        (left_MK * signs_K).T.float().contiguous().numpy(),
        (right_NK * signs_K).T.float().contiguous().numpy(),
        stable_rank=max(1.0, square / float(values[0]) ** 2),
        effective_rank=max(1.0, square**2 / fourth),
        decay_exponent=_decay(values_S),
        error=error,
    )


def _decay(values_S: FloatArray) -> float:
    real = values_S[values_S > NEGLIGIBLE * values_S[0]]
    if len(real) < 3:
        return math.nan
    return float(-np.polyfit(np.log(np.arange(1, len(real) + 1)), np.log(real), 1)[0])
