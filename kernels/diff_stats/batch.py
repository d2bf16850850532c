"""Owns PairBatch: both sides' sparse rows over one batch of whole prompts, wherever they lie.

Legend: T tokens, P prompts, G groups of prompts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.kernels.diff_stats.rows import PairRows, SideRows
from ft_audit.kernels.sparse_rows import SparseRows


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Rows on one device; what the tokens belong to may lie on the host beside them."""

    base: SparseRows
    tuned: SparseRows
    prompt_indptr_P1: Tensor  # int64
    mask_T: Tensor  # bool
    groups_GP: Tensor  # bool

    def __post_init__(self) -> None:
        # Of what lies on a device, shapes alone: reading a value would wait for it.
        num_tokens = self.mask_T.shape[0]
        assert self.base.num_rows == self.tuned.num_rows == num_tokens
        assert self.base.num_features == self.tuned.num_features
        assert self.base.value_N.device == self.tuned.value_N.device
        assert self.prompt_indptr_P1.dtype == torch.int64 and self.prompt_indptr_P1.dim() == 1
        assert self.mask_T.dtype == torch.bool and self.mask_T.dim() == 1
        assert self.groups_GP.dtype == torch.bool and self.groups_GP.dim() == 2
        assert self.groups_GP.shape[1] == self.num_prompts
        if self.prompt_indptr_P1.device.type == "cpu":
            pointers = self.prompt_indptr_P1
            assert pointers[0] == 0 and pointers[-1] == num_tokens, "prompts do not cover the tokens"
            assert bool((pointers.diff() >= 0).all()), "prompt pointers descend"

    @property
    def num_prompts(self) -> int:
        return self.prompt_indptr_P1.numel() - 1

    def on_host(self) -> tuple[PairRows, NDArray[np.bool_]]:
        """The same rows and groups as arrays, without a copy where they already lie on the host."""
        rows = PairRows(
            base=_side(self.base),
            tuned=_side(self.tuned),
            prompt_indptr_P1=self.prompt_indptr_P1.cpu().numpy(),
            mask_T=self.mask_T.cpu().numpy(),
            num_features=self.base.num_features,
        )
        return rows, self.groups_GP.cpu().numpy()


def _side(rows: SparseRows) -> SideRows:
    return SideRows(
        rows.indptr_T1.cpu().numpy(), rows.index_N.cpu().numpy(), rows.value_N.cpu().float().numpy()
    )
