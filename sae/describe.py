"""Owns what `sae info` tells of a dictionary: what it reads, how it fires, how large its parts are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ft_audit.sae.examples import EXAMPLES_FILE, open_examples
from ft_audit.sae.formats.known import find_format
from ft_audit.sae.jumprelu_sae import JumpReluSae


def describe(path: Path, sae: JumpReluSae) -> dict[str, Any]:
    """Everything there is to say of the dictionary at `path`, as plain JSON values."""
    spec = asdict(sae.spec)
    for name in ("also_reads", "writes"):
        spec.pop(name)
    encoder_F, decoder_F = sae.w_enc_DF.norm(dim=0), sae.w_dec_FD.norm(dim=1)
    return {
        **spec,
        "format": find_format(path).name,
        "kind": sae.spec.kind,
        "activation": sae.activation,
        "topk": sae.topk,
        "input_norm": sae.input_norm,
        "inputs": list(sae.spec.inputs),
        "outputs": list(sae.spec.outputs),
        "d_out": sae.d_out,
        "affine_skip": sae.w_skip_DO is not None,
        "threshold_min": float(sae.threshold_F.min()),
        "threshold_max": float(sae.threshold_F.max()),
        "encoder_norm_mean": float(encoder_F.mean()),
        "decoder_norm_mean": float(decoder_F.mean()),
        "decoder_norm_min": float(decoder_F.min()),
        "decoder_norm_max": float(decoder_F.max()),
        "b_dec_norm": float(sae.b_dec_D.norm()),
        "examples": _examples(path),
    }


def _examples(path: Path) -> dict[str, Any] | None:
    if not (path / EXAMPLES_FILE).is_file():
        return None
    with open_examples(path) as examples:
        rate_F = examples.firing_rates()
        return {
            "features": examples.num_features,
            "sequences": examples.num_sequences,
            "sequence_length": examples.sequence_length,
            "never_fires": int((rate_F == 0).sum()),
            "median_firing_rate": float(np.median(rate_F)),
        }
