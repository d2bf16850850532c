"""Owns the halving of a dictionary: its matrices rounded to bfloat16."""

from __future__ import annotations

import dataclasses

from ft_audit.sae.digest import sae_digest
from ft_audit.sae.jumprelu_sae import JumpReluSae


def rounded_to_bfloat16(sae: JumpReluSae) -> JumpReluSae:
    """The dictionary with rounded encoder and decoder matrices, still held as float32; biases stay.

    Activations move by up to 2^-9 of |x| |w|: it is another dictionary and gets another hash.
    """
    w_enc_DF, w_dec_FD = sae.w_enc_DF.bfloat16().float(), sae.w_dec_FD.bfloat16().float()
    sha256 = sae_digest(
        w_enc_DF, w_dec_FD, sae.b_enc_F, sae.b_dec_D, sae.threshold_F, sae.apply_b_dec_to_input
    )
    spec = dataclasses.replace(sae.spec, sha256=sha256)
    return dataclasses.replace(sae, spec=spec, w_enc_DF=w_enc_DF, w_dec_FD=w_dec_FD)
