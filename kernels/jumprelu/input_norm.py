"""Owns what some dictionaries do to every row before they encode it, and how it is undone after decoding.

Legend of shapes: T tokens, D d_model.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

InputNorm = Literal["none", "layer_norm", "unit_rms"]
LAYER_NORM_EPS = 1e-5
TINY = 1e-30  # a row of zeros stays one


class NormedRows(NamedTuple):
    """Rows as the dictionary sees them; what it makes of them, times scale plus shift, is in x's units."""

    x_TD: Tensor
    scale_T1: Tensor
    shift_T1: Tensor


def normalise_rows(x_TD: Tensor, how: InputNorm) -> NormedRows:
    """Each row in the dictionary's own scale, float32.

    `layer_norm` is that of Gao et al. 2024 (arXiv 2406.04093), as its published code has it: the mean taken
    out, then divided by the unbiased standard deviation + 1e-5, which is put back without the 1e-5.
    `unit_rms` divides by the row's root mean square.
    """
    x_TD = x_TD.float()
    if how == "layer_norm":
        shift_T1 = x_TD.mean(dim=1, keepdim=True)
        scale_T1 = x_TD.std(dim=1, keepdim=True)
        return NormedRows((x_TD - shift_T1) / (scale_T1 + LAYER_NORM_EPS), scale_T1, shift_T1)
    shift_T1 = x_TD.new_zeros((x_TD.shape[0], 1))
    if how == "unit_rms":
        scale_T1 = x_TD.square().mean(dim=1, keepdim=True).sqrt().clamp_min(TINY)
        return NormedRows(x_TD / scale_T1, scale_T1, shift_T1)
    return NormedRows(x_TD, torch.ones_like(shift_T1), shift_T1)
