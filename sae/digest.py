"""Owns the identity of a dictionary: a hash of what it computes, not of the file it came in."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def sae_digest(
    w_enc_DF: Tensor,
    w_dec_FD: Tensor,
    b_enc_F: Tensor,
    b_dec_D: Tensor,
    threshold_F: Tensor,
    apply_b_dec_to_input: bool,
) -> str:
    """SHA-256, in hex, over the tensors as float32: a bfloat16 and a float32 file of equal values agree."""
    sha = hashlib.sha256(b"jumprelu-sae-1")
    sha.update(bytes([apply_b_dec_to_input]))
    for tensor in (w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F):
        sha.update(repr(tuple(tensor.shape)).encode())
        sha.update(tensor.to("cpu", torch.float32).contiguous().numpy().data)
    return sha.hexdigest()
