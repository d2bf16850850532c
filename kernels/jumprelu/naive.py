"""Owns the plain JumpReLU formula: the ground truth for every other path.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.input_norm import normalise_rows
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows


def pre_activations(x_TD: Tensor, weights: JumpReluWeights, dtype: torch.dtype = torch.float32) -> Tensor:
    """`(x - b_dec) @ w_enc + b_enc` as [T, F] in `dtype`, from inputs and weights as they are stored."""
    x_TD = normalise_rows(x_TD, weights.input_norm).x_TD
    if weights.b_dec_D is not None:
        x_TD = x_TD - weights.b_dec_D
    return x_TD.to(dtype) @ weights.w_enc_DF.to(dtype) + weights.b_enc_F.to(dtype)


def encode_naive(x_TD: Tensor, weights: JumpReluWeights, dtype: torch.dtype = torch.float32) -> SparseRows:
    """The features that fire on each row, by a dense [T, F] product in `dtype`, rounded to float32."""
    pre_TF = pre_activations(x_TD, weights, dtype).float()
    # Below zero a feature cannot fire, whatever its threshold: relu leaves nothing to keep.
    fires_TF = pre_TF > weights.threshold_F.clamp_min(0.0)
    if weights.topk is not None:
        # Stable: of equal ones those that come first, which are the lower features.
        largest_TK = pre_TF.sort(dim=1, descending=True, stable=True).indices[:, : weights.topk]
        fires_TF &= torch.zeros_like(fires_TF).scatter_(1, largest_TK, True)
    indptr_T1 = torch.zeros(x_TD.shape[0] + 1, dtype=torch.int64, device=x_TD.device)
    indptr_T1[1:] = fires_TF.sum(1).cumsum(0)
    index_N = fires_TF.nonzero()[:, 1].to(torch.int32)
    value_N = pre_TF[fires_TF].to(torch.bfloat16)
    return SparseRows(indptr_T1, index_N, value_N, weights.num_features)
