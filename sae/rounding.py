"""Owns the halving of a dictionary: its matrices rounded to bfloat16."""

from __future__ import annotations

import dataclasses

from ft_audit.sae.digest import hashed
from ft_audit.sae.jumprelu_sae import JumpReluSae


def rounded_to_bfloat16(sae: JumpReluSae) -> JumpReluSae:
    """The dictionary with rounded matrices, still held as float32; biases stay.

    Activations move by up to 2^-9 of |x| |w|: it is another dictionary and gets another hash.
    """
    skip = sae.w_skip_DO
    return hashed(
        dataclasses.replace(
            sae,
            w_enc_DF=sae.w_enc_DF.bfloat16().float(),
            w_dec_FD=sae.w_dec_FD.bfloat16().float(),
            w_skip_DO=None if skip is None else skip.bfloat16().float(),
        )
    )
