"""Owns the question whose a crosscoder's feature is: the base's, the fine-tune's, or both's.

A feature whose direction is short in the base's decoder may still be there in the base: sparse training
drives shared concepts apart. Latent scaling (Minder et al. 2025, arXiv 2504.02922) asks the activations: by
what factor beta does the feature, along its direction in the fine-tune, explain each model's reconstruction
error or reconstruction best? `beta = sum_n f_n (y_n . d) / (sum_n f_n^2 |d|^2)`. The ratio base / tuned is
near 0 for what only the fine-tune has and near 1 for what both share.

Legend of shapes: n tokens of a chunk, D width of the residual stream, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Below both, a feature counts as the fine-tune's own, as in the paper's selection of chat-only latents.
MAX_ERROR_RATIO, MAX_RECONSTRUCTION_RATIO = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class ScalingRatios:
    """Base over tuned [F]; NaN where a feature never fired."""

    error_F: Tensor
    reconstruction_F: Tensor
    norm_share_F: Tensor
    """The tuned model's part of the squared decoder norm: 0.5 for a feature that is alike in both."""

    @property
    def tuned_only_F(self) -> Tensor:
        """Which features are the fine-tune's own."""
        return (self.error_F < MAX_ERROR_RATIO) & (self.reconstruction_F < MAX_RECONSTRUCTION_RATIO)


class LatentScaling:
    """Adds up, over chunks, how each feature's direction in the fine-tune goes with both models."""

    def __init__(self, w_dec_F2D: Tensor, b_dec_2D: Tensor) -> None:
        # The bias is the same on every token and no feature's doing.
        self.bias_2D = b_dec_2D
        self.base_FD, self.tuned_FD = w_dec_F2D.chunk(2, dim=1)
        num_features = w_dec_F2D.shape[0]
        self._sums = {
            (what, side): torch.zeros(num_features, dtype=torch.float64)
            for what in ("error", "reconstruction")
            for side in ("base", "tuned")
        }
        self._squares_F = torch.zeros(num_features, dtype=torch.float64)

    def add(self, act_nF: Tensor, x_n2D: Tensor, decoded_n2D: Tensor) -> None:
        """Add a chunk: dense activations, both models' activations side by side, and their reconstruction."""
        error_n2D = x_n2D - decoded_n2D
        for what, both_n2D in (("error", error_n2D), ("reconstruction", decoded_n2D - self.bias_2D)):
            for side, y_nD in zip(("base", "tuned"), both_n2D.chunk(2, dim=1), strict=True):
                self._sums[what, side] += (act_nF * (y_nD @ self.tuned_FD.T)).sum(0).double().cpu()
        self._squares_F += act_nF.double().square().sum(0).cpu()

    def ratios(self) -> ScalingRatios:
        """The ratios over all chunks."""
        tuned_F, base_F = (x.double().square().sum(1).cpu() for x in (self.tuned_FD, self.base_FD))
        unit_F = self._squares_F * tuned_F
        # What the feature itself explains of the fine-tune is put back into its error.
        error_F = self._sums["error", "base"] / (self._sums["error", "tuned"] + unit_F)
        reconstruction_F = self._sums["reconstruction", "base"] / self._sums["reconstruction", "tuned"]
        never_F = self._squares_F == 0
        return ScalingRatios(
            error_F.masked_fill(never_F, torch.nan),
            reconstruction_F.masked_fill(never_F, torch.nan),
            tuned_F / (tuned_F + base_F).clamp_min(1e-30),
        )
