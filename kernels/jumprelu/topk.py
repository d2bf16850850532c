"""Owns encoding where only the k largest features of a row may fire, on any device.

Every pre-activation of a row must be known before any is kept, so that nothing can be screened as for a plain
threshold: rows go through in chunks whose dense pre-activations take a fixed amount of memory.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.naive import pre_activations
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

CHUNK_VALUES = 1 << 24  # 64 MiB of float32, whatever the dictionary's width


class TopKEncoder:
    """The exact rows of `encode_naive` with `weights.topk`: float32 products, ties to the lower feature."""

    def __init__(self, weights: JumpReluWeights) -> None:
        assert weights.topk is not None
        self.topk = min(weights.topk, weights.num_features)
        # Products are in float32 whatever the weights are stored in: rounded ones would tie, and ties decide.
        self.weights = replace(weights, w_enc_DF=weights.w_enc_DF.float().contiguous())
        self.max_rows = max(1, CHUNK_VALUES // weights.num_features)

    def encode(self, x_TD: Tensor) -> SparseRows:
        """The rows of a block; memory does not grow with it."""
        chunks = x_TD.split(self.max_rows) if x_TD.shape[0] else (x_TD,)
        return SparseRows.concatenate([self._encode(chunk_TD) for chunk_TD in chunks])

    def _encode(self, x_TD: Tensor) -> SparseRows:
        pre_TF = pre_activations(x_TD, self.weights)
        fires_TF = pre_TF > self.weights.threshold_F.clamp_min(0.0)
        # torch.topk gives the right values but not which of equal ones it took: only the smallest is used.
        cut_T1 = pre_TF.topk(self.topk, dim=1).values.amin(dim=1, keepdim=True)
        above_TF, level_TF = pre_TF > cut_T1, pre_TF == cut_T1
        room_T1 = self.topk - above_TF.sum(dim=1, keepdim=True)
        fires_TF &= above_TF | (level_TF & (level_TF.cumsum(dim=1, dtype=torch.int32) <= room_T1))
        indptr_T1 = torch.zeros(x_TD.shape[0] + 1, dtype=torch.int64, device=x_TD.device)
        indptr_T1[1:] = fires_TF.sum(dim=1).cumsum(0)
        index_N = fires_TF.nonzero()[:, 1].to(torch.int32)
        return SparseRows(indptr_T1, index_N, pre_TF[fires_TF].to(torch.bfloat16), self.weights.num_features)
