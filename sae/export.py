"""Owns the step from a trained BatchTopK dictionary to the JumpReLU one that is stored.

Training sees `scale * x`. With `f' = f / scale` the decoder keeps its unit norm and the activations get
the unit of the residual stream, so that inference needs no scaling and no `b_dec` subtraction:
`pre' = x @ w_enc + (b_enc - b_dec @ w_enc) / scale`, `threshold' = threshold / scale`,
`b_dec' = b_dec / scale`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ft_audit.sae.digest import sae_digest
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec


def export_jumprelu(
    *,
    w_enc_DF: Tensor,
    w_dec_FD: Tensor,
    b_enc_F: Tensor,
    b_dec_D: Tensor,
    scale: float,
    threshold: float,
    dtype: torch.dtype,
    name: str,
    layer: int,
    site: str,
    model_name: str,
    l0: float | None,
) -> JumpReluSae:
    """The folded dictionary, its matrices rounded to `dtype` and held as float32 on the CPU."""
    w_enc_DF = w_enc_DF.cpu().to(dtype).float()
    w_dec_FD = w_dec_FD.cpu().to(dtype).float()
    # The mean is folded through the rounded encoder: a large mean times a rounding error would otherwise
    # shift every pre-activation.
    b_enc_F = ((b_enc_F.cpu().double() - b_dec_D.cpu().double() @ w_enc_DF.double()) / scale).float()
    b_dec_D = b_dec_D.cpu() / scale
    threshold_F = torch.full_like(b_enc_F, threshold / scale)
    d_in, width = w_enc_DF.shape
    spec = SaeSpec(
        name=name,
        layer=layer,
        site=site,
        hook_point=f"model.layers.{layer}.output",
        width=width,
        d_in=d_in,
        model_name=model_name,
        l0=l0,
        sha256=sae_digest(w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F, False),
    )
    return JumpReluSae(spec, w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F, apply_b_dec_to_input=False)
