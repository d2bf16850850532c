"""Owns the step from a trained BatchTopK dictionary to the JumpReLU one that is stored.

Training sees `scale * x`. With `f' = f / scale` the decoder keeps its unit norm and the activations get
the unit of the residual stream, so that inference needs no scaling and no `b_dec` subtraction:
`pre' = x @ w_enc + (b_enc - b_dec @ w_enc) / scale`, `threshold' = threshold / scale`,
`b_dec' = b_dec / scale`. A training that goes on from a dictionary takes the same step backwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.batch_topk import Start
from ft_audit.sae.digest import sae_digest
from ft_audit.sae.jumprelu_sae import JumpReluSae, PairReading, SaeSpec

MIN_THRESHOLD = 1e-3


def export_jumprelu(
    *,
    w_enc_DF: Tensor,
    w_dec_FD: Tensor,
    b_enc_F: Tensor,
    b_dec_D: Tensor,
    scale: float,
    threshold_F: Tensor,
    dtype: torch.dtype,
    name: str,
    layer: int,
    site: str,
    model_name: str,
    l0: float | None,
    pair: PairReading | None = None,
) -> JumpReluSae:
    """The folded dictionary, its matrices rounded to `dtype` and held as float32 on the CPU."""
    w_enc_DF = w_enc_DF.cpu().to(dtype).float()
    w_dec_FD = w_dec_FD.cpu().to(dtype).float()
    # The mean is folded through the rounded encoder: a large mean times a rounding error would otherwise
    # shift every pre-activation.
    b_enc_F = ((b_enc_F.cpu().double() - b_dec_D.cpu().double() @ w_enc_DF.double()) / scale).float()
    b_dec_D = b_dec_D.cpu() / scale
    threshold_F = (threshold_F.cpu() / scale).float()
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
        pair=pair,
    )
    return JumpReluSae(spec, w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F, apply_b_dec_to_input=False)


def training_start(sae: JumpReluSae, scale: float) -> Start:
    """A dictionary as the trainer holds it, for activations that are multiplied by `scale`.

    Decoder norms move into the activations. Features compete in units of their thresholds, so one at 0 would
    always win: it counts as MIN_THRESHOLD of the median one. Where all are 0 (plain ReLU), all compete alike.
    Raises SaeError for one that the trainer cannot hold.
    """
    if sae.spec.also_reads or sae.spec.writes or sae.input_norm != "none":
        raise SaeError(
            f"start: {sae.spec.name} is a {sae.spec.kind} of {', '.join(sae.spec.inputs)} with input_norm "
            f"{sae.input_norm}; training goes on from one that reconstructs the one hook it reads, as it is"
        )
    norm_F = sae.w_dec_FD.norm(dim=1).clamp_min(1e-12)
    w_enc_DF = sae.w_enc_DF * norm_F
    b_enc_F = sae.b_enc_F * norm_F
    b_dec_D = sae.b_dec_D * scale
    # The trainer subtracts b_dec before encoding, as a dictionary with apply_b_dec_to_input does.
    offset_F = 0.0 if sae.apply_b_dec_to_input else b_dec_D.double() @ w_enc_DF.double()
    return Start(
        w_enc_DF=w_enc_DF,
        w_dec_FD=sae.w_dec_FD / norm_F[:, None],
        b_enc_F=(b_enc_F.double() * scale + offset_F).float(),
        b_dec_D=b_dec_D,
        threshold_F=_positive(sae.threshold_F * norm_F * scale),
    )


def _positive(threshold_F: Tensor) -> Tensor:
    above_N = threshold_F[threshold_F > 0]
    if not above_N.numel():
        return torch.ones_like(threshold_F)
    return threshold_F.clamp_min(MIN_THRESHOLD * float(above_N.median()))
