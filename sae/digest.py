"""Owns the identity of a dictionary: a hash of what it computes, not of the file it came in."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.input_norm import InputNorm


def sae_digest(
    w_enc_DF: Tensor,
    w_dec_FD: Tensor,
    b_enc_F: Tensor,
    b_dec_D: Tensor,
    threshold_F: Tensor,
    apply_b_dec_to_input: bool,
    *,
    topk: int | None = None,
    input_norm: InputNorm = "none",
    w_skip_DO: Tensor | None = None,
    also_reads: tuple[str, ...] = (),
    writes: tuple[str, ...] = (),
) -> str:
    """SHA-256, in hex, over the tensors as float32: a bfloat16 and a float32 file of equal values agree.

    What a plain dictionary does not have is hashed only where it is there.
    """
    sha = hashlib.sha256(b"jumprelu-sae-1")
    sha.update(bytes([apply_b_dec_to_input]))
    for tensor in (w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F):
        _add(sha, tensor)
    if w_skip_DO is not None:
        sha.update(b"skip")
        _add(sha, w_skip_DO)
    if topk is not None or input_norm != "none" or also_reads or writes:
        sha.update(json.dumps([topk, input_norm, also_reads, writes]).encode())
    return sha.hexdigest()


def _add(sha: hashlib._Hash, tensor: Tensor) -> None:
    sha.update(repr(tuple(tensor.shape)).encode())
    sha.update(tensor.to("cpu", torch.float32).contiguous().numpy().data)
