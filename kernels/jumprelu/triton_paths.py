"""Owns the two ways to find what fires with Triton: one fused program, or the vendor's product and a scan.

Both fill the same slots. Legend of shapes: M rows, S sub-rows, D d_model, F features, E slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
import triton
from torch import Tensor

from ft_audit.kernels.jumprelu.triton_folding import Folded
from ft_audit.kernels.jumprelu.triton_kernels import jumprelu_append_fwd_kernel, jumprelu_fused_fwd_kernel
from ft_audit.kernels.jumprelu.triton_plans import FusedPlan, MatmulPlan, Plan

APPEND_ROWS, APPEND_FEATURES, APPEND_WARPS = 8, 256, 4
WAVES = 8  # blocks of rows between two waits for the device
INTERPRETED_APPEND_ROWS = 512  # each operation costs the interpreter the same, however large


class Slots(NamedTuple):
    """Where each sub-row may write: `limit` slots of `index` and `value` from `start` on."""

    start_S: Tensor  # int64
    limit_S: Tensor  # int32
    index_E: Tensor  # int32
    value_E: Tensor  # bfloat16


class Path(Protocol):
    """Finds what fires on some rows, each cut into the same number of sub-rows."""

    @property
    def plan(self) -> Plan:
        """What it was made from."""

    @property
    def rows_at_once(self) -> int:
        """How many rows keep the device busy to the end."""

    @property
    def unit(self) -> int:
        """Rows that must be replayed together, from a multiple of it on, to give the same bits again."""

    def splits(self, num_rows: int) -> int:
        """How many sub-rows a row is cut into when there are so many rows."""

    def find(self, x_MD: Tensor, splits: int, slots: Slots) -> Tensor:
        """Fills the slots; returns how much each sub-row found, int32 [S], also past its limit."""


class FusedPath:
    """Product and selection in one program; a row's bits depend on nothing but the row and the plan."""

    unit = 1

    def __init__(self, w_enc_DF: Tensor, folded: Folded, plan: FusedPlan, at_work: int) -> None:
        self.w_enc_DF, self.folded, self.plan = w_enc_DF, folded, plan
        self.at_work = at_work  # programs that the device runs at once
        self.rows_at_once = at_work * plan.rows

    def splits(self, num_rows: int) -> int:
        num_blocks, num_tiles = _steps(num_rows, self.plan.rows), self._num_tiles()
        wanted = min(max(1, self.at_work // num_blocks), num_tiles)
        return _steps(num_tiles, _steps(num_tiles, wanted))

    def _num_tiles(self) -> int:
        return _steps(self.w_enc_DF.shape[1], self.plan.features)

    def find(self, x_MD: Tensor, splits: int, slots: Slots) -> Tensor:
        (num_rows, d_in), width, plan = x_MD.shape, self.w_enc_DF.shape[1], self.plan
        count_S = torch.empty(num_rows * splits, dtype=torch.int32, device=x_MD.device)
        jumprelu_fused_fwd_kernel[(_steps(num_rows, plan.rows), splits)](
            x_MD,
            self.w_enc_DF,
            self.folded.bias_F,
            self.folded.cut_F,
            slots.start_S,
            slots.limit_S,
            count_S,
            slots.index_E,
            slots.value_E,
            num_rows,
            d_in,
            width,
            _steps(self._num_tiles(), splits),
            BM=plan.rows,
            BN=plan.features,
            BK=plan.depth,
            EVEN_K=d_in % plan.depth == 0,
            EVEN_F=width % plan.features == 0,
            IN_BFLOAT16=x_MD.dtype == self.w_enc_DF.dtype == torch.bfloat16,
            INTERPRET=triton.knobs.runtime.interpret,
            num_warps=plan.num_warps,
            num_stages=plan.num_stages,
        )
        return count_S


class MatmulPath:
    """The vendor's product in blocks that stay in cache, each followed by a selection.

    The vendor picks its program by the shape of a block, so the last bit of a pre-activation may depend on
    how many rows a block has; the same rows in the same blocks give the same bits.
    """

    def __init__(self, w_enc_DF: Tensor, folded: Folded, plan: MatmulPlan) -> None:
        self.w_enc_DF, self.folded, self.plan = w_enc_DF, folded, plan
        self.unit = plan.rows
        self.rows_at_once = WAVES * plan.rows
        self._product_E = torch.empty(0, device=w_enc_DF.device)

    def splits(self, num_rows: int) -> int:
        return 1

    def find(self, x_MD: Tensor, splits: int, slots: Slots) -> Tensor:
        assert splits == 1
        num_rows, width = x_MD.shape[0], self.w_enc_DF.shape[1]
        needed = min(self.plan.rows, num_rows) * min(self.plan.features, width)
        if self._product_E.numel() < needed:
            self._product_E = torch.empty(needed, device=x_MD.device)
        count_M = torch.zeros(num_rows, dtype=torch.int32, device=x_MD.device)
        with _full_float32():
            for first_row in range(0, num_rows, self.plan.rows):
                rows = slice(first_row, first_row + self.plan.rows)
                for first in range(0, width, self.plan.features):
                    self._append(x_MD[rows], first, slots, rows, count_M[rows])
        return count_M

    def _append(self, x_MD: Tensor, first: int, slots: Slots, rows: slice, count_M: Tensor) -> None:
        w_enc_Df = self.w_enc_DF[:, first : first + self.plan.features]
        num_rows, num_features = x_MD.shape[0], w_enc_Df.shape[1]
        product_Mf = self._product_E[: num_rows * num_features].view(num_rows, num_features)
        if x_MD.is_cuda and x_MD.dtype == w_enc_Df.dtype == torch.bfloat16:
            torch.mm(x_MD, w_enc_Df, out_dtype=torch.float32, out=product_Mf)
        else:
            torch.mm(x_MD.float(), w_enc_Df.float(), out=product_Mf)
        block_rows = INTERPRETED_APPEND_ROWS if triton.knobs.runtime.interpret else APPEND_ROWS
        jumprelu_append_fwd_kernel[(_steps(num_rows, block_rows),)](
            product_Mf,
            self.folded.bias_F,
            self.folded.cut_F,
            slots.start_S[rows],
            slots.limit_S[rows],
            count_M,
            slots.index_E,
            slots.value_E,
            num_rows,
            first,
            num_features,
            BM=block_rows,
            BN=APPEND_FEATURES,
            INTERPRET=triton.knobs.runtime.interpret,
            num_warps=APPEND_WARPS,
        )


def _steps(total: int, step: int) -> int:
    return -(-total // step)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products of float32 in float32, whatever the user allows elsewhere."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before
