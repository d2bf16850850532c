"""Owns the products that find candidates on the CPU, and the proof that they miss none.

With `x^` and `w^` the inputs rounded to the precision of the product, Cauchy-Schwarz gives

    |x.w - x^.w^| <= |x - x^| |w| + |x^| |w - w^|

for bfloat16 and float32 as they are, for eight bits after centring and rotating both sides, which leaves
their product as it is. To this a floating-point product adds its own rounding in any order of summation
(Higham 2002, section 3.1), at most (D + 2) 2^-23 |x^| |w^|, and 2^-8 of the value where it is stored as
bfloat16; a product of integers is exact. A feature whose screened value lies below its threshold by more than
this cannot fire.

Legend of shapes: T tokens of a block, D d_model, F features, f features of one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ft_audit.kernels.jumprelu.cpu_kernels import measure_rows
from ft_audit.kernels.jumprelu.cpu_rotation import draw_rotation, quantise_rows, rotate_rows
from ft_audit.kernels.jumprelu.weights import JumpReluWeights

# Rounding of the bounds themselves and of their use in float32 stays far below this share.
SLOPE = 1.0 + 2.0**-16
SLACK = 2.0**-20
# The inner size of products in eight bits: at 1, oneDNN 3.12 reads past the end of its operands.
WHOLE_INNER = 64


class Screen(Protocol):
    """One precision of the product: operands in, screened values and their bounds out."""

    dtype: torch.dtype
    out_dtype: torch.dtype
    bounds: list[NDArray[np.float32]]
    """Of each block of features [3, f]: what reaches `unit * [0] - norm * [1] - rounding * [2]` may fire."""

    def operand(self, x_TD: Tensor) -> Tensor:
        """What `multiply` reads for these rows; `measure` may have to fill it first."""
        ...

    def measure(
        self, x_TD: NDArray[np.generic], operand_TD: NDArray[np.generic], factor_T3: NDArray[np.float32]
    ) -> bool:
        """Write unit, norm and rounding of each row; False when a row holds NaN or infinity."""
        ...

    def multiply(self, operand_TD: Tensor, block: int, out_Tf: Tensor) -> None:
        """Write the screened values of one block of features."""
        ...


class FloatScreen:
    """The product in bfloat16 or float32."""

    def __init__(
        self, weights: JumpReluWeights, exact_FD: Tensor, edges: Sequence[int], dtype: torch.dtype
    ) -> None:
        self.dtype = self.out_dtype = dtype
        self.bounds = []
        self._coarse: list[Tensor] = []
        stored = 2.0**-8 if dtype == torch.bfloat16 else 0.0
        summed = (weights.d_in + 2) * 2.0**-23
        for start, stop in pairwise(edges):
            coarse_fD = exact_FD[start:stop].to(dtype)
            # AMX wants features side by side; elsewhere rows are as fast, and bfloat16 ones are no copy.
            coarse_Df = coarse_fD.t().contiguous() if torch.cpu._is_amx_tile_supported() else coarse_fD.t()
            exact_fD, rounded_fD = exact_FD[start:stop].double(), coarse_fD.double()
            cut_f = _margin(weights, start, stop)
            by_norm_f = (exact_fD - rounded_fD).norm(dim=1) + summed * rounded_fD.norm(dim=1)
            lowest_f = cut_f - (stored + SLACK) * cut_f.abs() - 1e-30
            grown = (1 + stored) * SLOPE
            self.bounds.append(_stack(lowest_f, grown * by_norm_f, grown * exact_fD.norm(dim=1)))
            self._coarse.append(coarse_Df)

    def operand(self, x_TD: Tensor) -> Tensor:
        return x_TD.to(self.dtype)

    def measure(
        self, x_TD: NDArray[np.generic], operand_TD: NDArray[np.generic], factor_T3: NDArray[np.float32]
    ) -> bool:
        return bool(measure_rows(x_TD, operand_TD, factor_T3))

    def multiply(self, operand_TD: Tensor, block: int, out_Tf: Tensor) -> None:
        torch.mm(operand_TD, self._coarse[block], out=out_Tf)


class Int8Screen:
    """The product in eight bits: each rotated row and each rotated feature has its own scale.

    Twice as fast as bfloat16 where the processor has VNNI, with more candidates to compute exactly. Rows are
    centred first, because what all of them share takes up range and says nothing; any `centre_D` is exact.
    """

    dtype = torch.int8
    out_dtype = torch.int32

    def __init__(
        self, weights: JumpReluWeights, exact_FD: Tensor, edges: Sequence[int], centre_D: Tensor
    ) -> None:
        self.bounds = []
        self._coarse: list[Tensor] = []
        self._centre_D: NDArray[np.float32] = centre_D.float().numpy()
        self._rotation = draw_rotation(weights.d_in)
        self._num_zeros = -weights.d_in % WHOLE_INNER
        for start, stop in pairwise(edges):
            exact_fD = exact_FD[start:stop].double()
            lowest_f = _margin(weights, start, stop) - exact_fD @ centre_D.double()
            norm_f = exact_fD.norm(dim=1)
            rotate_rows(exact_fD.numpy(), self._rotation)
            largest_f = exact_fD.abs().amax(dim=1)
            scale_f = torch.where(largest_f > 1e-30, largest_f / 127.0, 1.0)
            coarse_fD = (exact_fD / scale_f[:, None]).round()
            by_norm_f = (exact_fD - coarse_fD * scale_f[:, None]).norm(dim=1) + SLACK * norm_f
            lowest_f = (lowest_f - SLACK * lowest_f.abs() - 1e-30) / scale_f
            self.bounds.append(_stack(lowest_f, SLOPE * by_norm_f / scale_f, SLOPE * norm_f / scale_f))
            self._coarse.append(functional.pad(coarse_fD.to(torch.int8), (0, self._num_zeros)).t())

    def operand(self, x_TD: Tensor) -> Tensor:
        return torch.zeros(x_TD.shape[0], x_TD.shape[1] + self._num_zeros, dtype=torch.int8)

    def measure(
        self, x_TD: NDArray[np.generic], operand_TD: NDArray[np.generic], factor_T3: NDArray[np.float32]
    ) -> bool:
        return bool(quantise_rows(x_TD, self._centre_D, self._rotation, operand_TD, factor_T3))

    def multiply(self, operand_TD: Tensor, block: int, out_Tf: Tensor) -> None:
        torch._int_mm(operand_TD, self._coarse[block], out=out_Tf)


def int8_is_exact() -> bool:
    """Whether torch multiplies eight bits here without saturating.

    Before VNNI the processor adds pairs of products in 16 bits, which can saturate.
    """
    return torch.cpu._is_vnni_supported()


def int8_may_pay() -> bool:
    """Whether eight bits may be faster than bfloat16; torch 2.13 uses AMX for the latter alone."""
    return int8_is_exact() and not torch.cpu._is_amx_tile_supported()


def _margin(weights: JumpReluWeights, start: int, stop: int) -> Tensor:
    """What x.w must exceed for a feature to fire, float64; relu: below zero nothing does."""
    cut_f = weights.threshold_F[start:stop].clamp_min(0.0)
    return cut_f.double() - weights.b_enc_F[start:stop].double()


def _stack(*rows: Tensor) -> NDArray[np.float32]:
    bounds: NDArray[np.float32] = torch.stack([row.float() for row in rows]).numpy()
    return bounds
