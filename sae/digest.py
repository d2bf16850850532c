"""Owns the identity of a dictionary: a hash of what it computes, not of the file it came in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu.input_norm import InputNorm
from ft_audit.sae.jumprelu_sae import JumpReluSae


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


def hashed(sae: JumpReluSae) -> JumpReluSae:
    """The same dictionary with the hash of what it computes in its spec."""
    sha256 = sae_digest(
        sae.w_enc_DF,
        sae.w_dec_FD,
        sae.b_enc_F,
        sae.b_dec_D,
        sae.threshold_F,
        sae.apply_b_dec_to_input,
        topk=sae.topk,
        input_norm=sae.input_norm,
        w_skip_DO=sae.w_skip_DO,
        also_reads=sae.spec.also_reads,
        writes=sae.spec.writes,
    )
    return replace(sae, spec=replace(sae.spec, sha256=sha256))


def _add(sha: hashlib._Hash, tensor: Tensor) -> None:
    sha.update(repr(tuple(tensor.shape)).encode())
    sha.update(tensor.to("cpu", torch.float32).contiguous().numpy().data)
