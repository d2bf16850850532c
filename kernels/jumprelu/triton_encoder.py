"""Owns the Triton encoder: finds into reserved slots, one look at the totals, then exact CSR.

Legend of shapes: M rows of a block, S sub-rows (a row's features in `splits` parts, in order), D d_model,
F features, E slots, N non-zeros, R replayed rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ft_audit.kernels.jumprelu.cpu import NotFiniteError
from ft_audit.kernels.jumprelu.triton_folding import fold
from ft_audit.kernels.jumprelu.triton_kernels import pack_rows_fwd_kernel
from ft_audit.kernels.jumprelu.triton_paths import FusedPath, MatmulPath, Path, Slots
from ft_audit.kernels.jumprelu.triton_plans import FusedPlan, Plan, choose_plan
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

PACK_ROWS, PACK_SLOTS = 4, 64
# Each operation costs the interpreter the same, however large.
INTERPRETED_PACK_ROWS = 256
INTERPRETED_ROWS = 1024


class _Found(NamedTuple):
    """Exact counts of every sub-row, and those that fit packed into CSR."""

    count_S: Tensor
    end_S: Tensor
    index_N: Tensor
    value_N: Tensor


class TritonEncoder:
    """Folded weights and slots for blocks of `max_rows` rows: memory does not grow with the tokens.

    `at_work` is how many programs the device runs at once: with fewer row blocks than that, rows are split.
    Left out, it is what the device has; so is the plan, by the precision of the operands. `plan` is the one
    in use, and before the first block the one for inputs in the precision of the weights.
    """

    def __init__(
        self,
        weights: JumpReluWeights,
        max_rows: int | None = None,
        capacity: int = 512,
        plan: Plan | None = None,
        at_work: int | None = None,
    ) -> None:
        assert weights.topk is None and weights.input_norm == "none", "Encoder sees to both"
        self.weights = weights
        self.capacity = min(capacity, weights.num_features)
        self._w_enc_DF, self._folded = weights.w_enc_DF.contiguous(), fold(weights)
        self._only_plan, self._at_work = plan, at_work
        self._paths: dict[torch.dtype, Path] = {}
        self.plan: Plan
        path = self._path(weights.w_enc_DF.dtype)
        self.max_rows = max_rows or (path.rows_at_once if self._w_enc_DF.is_cuda else INTERPRETED_ROWS)
        self._slots = self._reserve(0)

    def _path(self, dtype: torch.dtype) -> Path:
        """The path for inputs of that precision, made when it is first needed."""
        if dtype not in self._paths:
            weights, device = self.weights, self.weights.device
            precision = "bfloat16" if dtype == weights.w_enc_DF.dtype == torch.bfloat16 else "float32"
            plan = self._only_plan or choose_plan(device, weights.d_in, weights.num_features, precision)
            if isinstance(plan, FusedPlan):
                is_cuda = device.type == "cuda"
                num_cores = torch.cuda.get_device_properties(device).multi_processor_count if is_cuda else 1
                at_work = self._at_work or num_cores * plan.programs_a_core
                self._paths[dtype] = FusedPath(self._w_enc_DF, self._folded, plan, at_work)
            else:
                self._paths[dtype] = MatmulPath(self._w_enc_DF, self._folded, plan)
        self.plan = self._paths[dtype].plan
        return self._paths[dtype]

    def encode(self, x_MD: Tensor) -> SparseRows:
        """The exact sparse rows of one block; raises NotFiniteError on NaN or infinite activations."""
        num_rows = x_MD.shape[0]
        assert num_rows <= self.max_rows
        if num_rows == 0:
            return self._rows(x_MD.new_zeros(1, dtype=torch.int64), self._slots.index_E, self._slots.value_E)
        if x_MD.dtype not in (torch.float32, torch.bfloat16):
            x_MD = x_MD.float()
        x_MD = x_MD.contiguous()
        path = self._path(x_MD.dtype)
        splits = path.splits(num_rows)
        with torch.cuda.device_of(x_MD):  # programs start on the current device
            found = self._find(x_MD, path, splits)
        indptr_M1 = x_MD.new_zeros(num_rows + 1, dtype=torch.int64)
        indptr_M1[1:] = found.end_S.view(num_rows, splits)[:, -1]
        return self._rows(indptr_M1, found.index_N, found.value_N)

    def _find(self, x_MD: Tensor, path: Path, splits: int) -> _Found:
        num_subrows = x_MD.shape[0] * splits
        if self._slots.start_S.numel() < num_subrows:
            self._slots = self._reserve(num_subrows)
        largest = torch.linalg.vector_norm(x_MD, ord=float("inf"), dtype=torch.float32)  # NaN goes through it
        count_S = path.find(x_MD, splits, self._slots)
        end_S = count_S.cumsum(0, dtype=torch.int64)
        # The only wait for the device: what is needed to allocate, and whether all is well.
        facts = torch.stack([end_S[-1].double(), count_S.max().double(), largest.isfinite().double()])
        num_nonzeros, most, finite = facts.tolist()
        if not finite:
            raise NotFiniteError
        index_N = torch.empty(int(num_nonzeros), dtype=torch.int32, device=x_MD.device)
        value_N = torch.empty(int(num_nonzeros), dtype=torch.bfloat16, device=x_MD.device)
        found = _Found(count_S, end_S, index_N, value_N)
        pack_rows = INTERPRETED_PACK_ROWS if triton.knobs.runtime.interpret else PACK_ROWS
        pack_rows_fwd_kernel[(triton.cdiv(num_subrows, pack_rows),)](
            self._slots.index_E,
            self._slots.value_E,
            count_S,
            end_S,
            index_N,
            value_N,
            num_subrows,
            self.capacity,
            BS=pack_rows,
            BLOCK=PACK_SLOTS,
            num_warps=1,
        )
        if most > self.capacity:
            self._replay(x_MD, path, splits, found)
        return found

    def _replay(self, x_MD: Tensor, path: Path, splits: int, found: _Found) -> None:
        """Finds the rows that overflowed once more, now straight into their places in CSR."""
        num_rows, unit = x_MD.shape[0], path.unit
        overflowed_S = found.count_S > self.capacity
        row_R = overflowed_S.view(num_rows, splits).any(dim=1).nonzero()[:, 0]
        if unit > 1:
            # Whole units at their old places; rows that did not overflow write again what they wrote.
            touched_U = (row_R // unit).unique()
            row_R = (touched_U[:, None] * unit + torch.arange(unit, device=x_MD.device)).flatten()
            row_R = row_R[row_R < num_rows]
        count_S = found.count_S.view(num_rows, splits)[row_R].flatten()
        start_S = (found.end_S - found.count_S).view(num_rows, splits)[row_R].flatten()
        slots = Slots(start_S, count_S, found.index_N, found.value_N)
        again_S = path.find(x_MD[row_R], splits, slots)
        assert torch.equal(again_S, count_S), "a replay found other features than the first pass"

    def _reserve(self, num_subrows: int) -> Slots:
        device, capacity = self.weights.device, self.capacity
        return Slots(
            torch.arange(num_subrows, device=device) * capacity,
            torch.full((num_subrows,), capacity, dtype=torch.int32, device=device),
            torch.empty(num_subrows * capacity, dtype=torch.int32, device=device),
            torch.empty(num_subrows * capacity, dtype=torch.bfloat16, device=device),
        )

    def _rows(self, indptr_M1: Tensor, index_N: Tensor, value_N: Tensor) -> SparseRows:
        return SparseRows(indptr_M1, index_N, value_N, self.weights.num_features)
