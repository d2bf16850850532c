"""Owns what the Triton programs read of a feature: one bias, and the largest accumulator that stays silent.

Legend of shapes: D d_model, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.weights import JumpReluWeights

FEATURES_A_STEP = 8192
INFINITY_KEY = 0x7F800000
SIGN = 0x80000000


class Folded(NamedTuple):
    """`acc + bias` is the pre-activation, and `acc > cut` says, exactly, whether it fires."""

    bias_F: Tensor
    cut_F: Tensor


def fold(weights: JumpReluWeights) -> Folded:
    """Subtracts `b_dec @ w_enc` from the bias, once and in float64, and moves the bias into the threshold."""
    bias_F = weights.b_enc_F
    if weights.b_dec_D is not None:
        bias_F = torch.empty_like(weights.b_enc_F)
        for start in range(0, weights.num_features, FEATURES_A_STEP):
            part = slice(start, start + FEATURES_A_STEP)
            shift_f = weights.b_dec_D.double() @ weights.w_enc_DF[:, part].double()
            bias_F[part] = (weights.b_enc_F[part].double() - shift_f).float()
    # relu: below zero nothing fires, whatever the threshold.
    return Folded(bias_F.contiguous(), _largest_silent(bias_F, weights.threshold_F.clamp_min(0.0)))


def _largest_silent(bias_F: Tensor, cut_F: Tensor) -> Tensor:
    """The largest float32 `a` with `fl(a + bias) <= cut`.

    Rounded addition never decreases with `a`, so bisection over all float32 finds it, and comparing with it
    decides as comparing the rounded sum would: the programs add a bias only where something fired.
    """
    low_F = torch.full_like(bias_F, -INFINITY_KEY, dtype=torch.int64)  # silent, whatever the bias
    high_F = torch.full_like(low_F, INFINITY_KEY + 1)
    while bool((high_F - low_F > 1).any()):
        middle_F = (low_F + high_F) // 2
        silent_F = _float_of(middle_F) + bias_F <= cut_F
        low_F = torch.where(silent_F, middle_F, low_F)
        high_F = torch.where(silent_F, high_F, middle_F)
    return _float_of(low_F)


def _float_of(key_F: Tensor) -> Tensor:
    """The float32 of an integer key; keys are in the order of their floats, 0 at zero."""
    bits_F = torch.where(key_F < 0, SIGN - key_F, key_F)
    return torch.where(bits_F >= SIGN, bits_F - 2 * SIGN, bits_F).to(torch.int32).view(torch.float32)
