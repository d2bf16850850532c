"""Owns JumpReluWeights: the tensors a JumpReLU encoder needs, in the layout every path reads.

Legend of shapes: D d_model, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.input_norm import InputNorm


@dataclass(frozen=True, slots=True)
class JumpReluWeights:
    """`pre = (x - b_dec) @ w_enc + b_enc`; a feature fires iff `pre > threshold` (strict), with `relu(pre)`.

    JumpReLU after Rajamanoharan et al. 2024 (arXiv 2407.14435), equation 3. `b_dec_D` is None where the
    dictionary's own inference does not subtract it. With `topk` only the largest so many `pre` of a row may
    fire, of equal ones the lower features (TopK after Gao et al. 2024, arXiv 2406.04093: thresholds of 0).
    With an `input_norm`, rows are normalised before anything else.
    """

    w_enc_DF: Tensor  # float32 or bfloat16
    b_enc_F: Tensor  # float32
    threshold_F: Tensor  # float32
    b_dec_D: Tensor | None  # float32
    topk: int | None = None
    input_norm: InputNorm = "none"

    def __post_init__(self) -> None:
        d_in, width = self.w_enc_DF.shape
        assert self.w_enc_DF.dtype in (torch.float32, torch.bfloat16)
        assert self.b_enc_F.shape == (width,) and self.b_enc_F.dtype == torch.float32
        assert self.threshold_F.shape == (width,) and self.threshold_F.dtype == torch.float32
        assert self.topk is None or self.topk > 0
        assert self.b_dec_D is None or (self.b_dec_D.shape == (d_in,) and self.b_dec_D.dtype == torch.float32)

    @property
    def d_in(self) -> int:
        return self.w_enc_DF.shape[0]

    @property
    def num_features(self) -> int:
        return self.w_enc_DF.shape[1]

    @property
    def device(self) -> torch.device:
        return self.w_enc_DF.device
