"""Owns TritonTotals: the diff statistics on the device, of which only the result leaves it.

Legend: T tokens, P prompts, S slots (prompts at work at once), F features, N non-zeros, G groups, C columns.
"""

from typing import NamedTuple, Self

import torch
import triton
from torch import Tensor

from ft_audit.kernels.diff_stats.batch import PairBatch
from ft_audit.kernels.diff_stats.moments import ARRAY_NAMES, PairMoments, from_table
from ft_audit.kernels.diff_stats.triton_kernels import (
    add_prompts_fwd_kernel,
    add_tokens_fwd_kernel,
    match_sides_fwd_kernel,
)

SCRATCH_BYTES = 1 << 30
BYTES_A_FEATURE = 8 * (8 + 2) + 1  # of a slot: both sides' records, the shared one, whether it is touched
ENTRIES_A_STEP = 128  # of a row; most rows of a dictionary with L0 below 100 are one step
FEATURES_A_PROGRAM = 64
# The kernels' columns: each side's record, the shared one, then what prompts add up to.
COLUMN_OF = {
    "sum_base": 0, "sumsq_base": 1, "fired_base": 2, "max_base": 3,
    "sum_tuned": 4, "sumsq_tuned": 5, "fired_tuned": 6, "max_tuned": 7,
    "cross": 8, "fired_both": 9,
    "prompts_base": 10, "prompts_tuned": 11, "prompts_either": 12,
    "sum_d": 13, "sumsq_d": 14, "sum_r": 15, "sumsq_r": 16,
}  # fmt: skip


class _Scratch(NamedTuple):
    """The records of the prompts at work; zero whenever no wave is under way."""

    sides_SFC: Tensor  # fp64, 8 columns
    pairs_SFC: Tensor  # fp64, 2 columns
    touched_SF: Tensor  # uint8: 1 where the slot's prompt has a record of the feature

    @classmethod
    def zeros(cls, num_slots: int, num_features: int, device: torch.device) -> Self:
        shape = (num_slots, num_features)
        return cls(
            torch.zeros(*shape, 8, dtype=torch.float64, device=device),
            torch.zeros(*shape, 2, dtype=torch.float64, device=device),
            torch.zeros(shape, dtype=torch.uint8, device=device),
        )


class TritonTotals:
    """The moments of groups of prompts, added up batch after batch in device memory.

    A batch's prompts are worked on in waves: each has a slot of scratch, 81 bytes a feature, and there are
    as many slots as the batch has prompts or `scratch_bytes` holds, one at least. Wider dictionaries have
    smaller waves, but the cost of encoding grows with the width and that of a wave's tokens does not.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int,
        device: torch.device,
        scratch_bytes: int = SCRATCH_BYTES,
    ) -> None:
        self._device = device
        self._max_slots = max(1, scratch_bytes // (num_features * BYTES_A_FEATURE))
        self._total_GFC = torch.zeros(
            num_groups, num_features, len(COLUMN_OF), dtype=torch.float64, device=device
        )
        self._counted_G2 = torch.zeros(num_groups, 2, dtype=torch.int64, device=device)
        self._scratch: _Scratch | None = None

    def _scratch_for(self, num_prompts: int) -> _Scratch:
        """Zeroed slots, one for each prompt of the batch where that many fit."""
        num_slots = min(num_prompts, self._max_slots)
        if self._scratch is None or len(self._scratch.touched_SF) < num_slots:
            self._scratch = None  # freed before its successor is made
            self._scratch = _Scratch.zeros(num_slots, self._total_GFC.shape[1], self._device)
        return self._scratch

    def add(self, batch: PairBatch) -> None:
        """Add whole prompts; returns before the device is done, and never waits for it."""
        num_groups, num_features, _ = self._total_GFC.shape
        num_prompts, num_tokens = batch.num_prompts, batch.mask_T.numel()
        if not num_prompts or not num_tokens:
            return
        scratch = self._scratch_for(num_prompts)
        num_slots = len(scratch.touched_SF)
        prompt_indptr_P1, mask_T, groups_GP = (
            tensor.to(self._device, non_blocking=True).contiguous()
            for tensor in (batch.prompt_indptr_P1, batch.mask_T, batch.groups_GP)
        )
        counted_P = self._count(prompt_indptr_P1, mask_T, groups_GP)
        base, tuned = batch.base, batch.tuned
        partner_N = torch.empty(base.num_nonzeros, dtype=torch.float32, device=self._device)
        match_sides_fwd_kernel[(num_tokens,)](
            base.indptr_T1,
            base.index_N,
            tuned.indptr_T1,
            tuned.index_N,
            tuned.value_N,
            partner_N,
            BLOCK=ENTRIES_A_STEP,
            num_warps=1,
        )
        for first_prompt in range(0, num_prompts, num_slots):
            wave = min(num_slots, num_prompts - first_prompt)
            add_tokens_fwd_kernel[(wave,)](
                base.indptr_T1,
                base.index_N,
                base.value_N,
                tuned.indptr_T1,
                tuned.index_N,
                tuned.value_N,
                partner_N,
                prompt_indptr_P1,
                mask_T.view(torch.uint8),
                scratch.sides_SFC,
                scratch.pairs_SFC,
                scratch.touched_SF,
                first_prompt,
                num_features,
                BLOCK=ENTRIES_A_STEP,
                num_warps=4,
            )
            add_prompts_fwd_kernel[(triton.cdiv(num_features, FEATURES_A_PROGRAM),)](
                scratch.sides_SFC,
                scratch.pairs_SFC,
                scratch.touched_SF,
                counted_P,
                groups_GP.view(torch.uint8),
                self._total_GFC,
                first_prompt,
                wave,
                num_prompts,
                num_features,
                num_groups,
                BLOCK=FEATURES_A_PROGRAM,
                num_warps=2,
                enable_fp_fusion=False,
            )

    def _count(self, prompt_indptr_P1: Tensor, mask_T: Tensor, groups_GP: Tensor) -> Tensor:
        """Each prompt's counted tokens; the groups' tokens and prompts are added to their totals."""
        before_T1 = torch.zeros(mask_T.numel() + 1, dtype=torch.int64, device=self._device)
        torch.cumsum(mask_T, 0, out=before_T1[1:])
        counted_P = before_T1[prompt_indptr_P1].diff()
        self._counted_G2[:, 0] += (groups_GP * counted_P).sum(1)
        self._counted_G2[:, 1] += (groups_GP & (counted_P > 0)).sum(1)
        return counted_P

    def result(self) -> list[PairMoments]:
        """The moments of each group so far; waits for the device."""
        columns = [COLUMN_OF[name] for name in ARRAY_NAMES]
        return [
            from_table(num_tokens, num_prompts, total_FC.numpy().T[columns])
            for (num_tokens, num_prompts), total_FC in zip(
                self._counted_G2.tolist(), self._total_GFC.cpu(), strict=True
            )
        ]
