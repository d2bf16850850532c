"""Owns SAELens's file layout: `cfg.json` beside `sae_weights.safetensors`.

Version 6 keeps hook and model under `metadata`, older ones at the top. A BatchTopK dictionary is stored as
the JumpReLU that it becomes at inference. Reading them needs no SAELens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu.input_norm import InputNorm
from ft_audit.sae.formats.build import Facts, Told, build_sae, check_width, described, read_hook, whole_number
from ft_audit.sae.formats.files import TensorFile, read_config, read_safetensors
from ft_audit.sae.hook_names import find_hook, read_hooks
from ft_audit.sae.jumprelu_sae import JumpReluSae

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
# Architecture -> whether its file holds thresholds, whether it is a transcoder.
ARCHITECTURES = {
    "standard": (False, False),
    "topk": (False, False),
    "jumprelu": (True, False),
    "transcoder": (False, True),
    "skip_transcoder": (False, True),
    "jumprelu_transcoder": (True, True),
    "jumprelu_skip_transcoder": (True, True),
}
INPUT_NORMS: dict[object, InputNorm] = {
    None: "none",
    False: "none",
    "none": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "unit_rms",
}


def load_sae_lens(folder: Path, told: Told) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    config, file = read_config(folder / CONFIG_FILE), read_safetensors(folder / WEIGHTS_FILE)
    where = str(folder / CONFIG_FILE)
    architecture = _architecture(where, config)
    has_threshold, transcoder = ARCHITECTURES[architecture]
    d_in, width = file.matrix_shape("W_enc")
    check_width(f"{where}: d_sae", config.get("d_sae"), width)
    d_out = file.matrix_shape("W_dec")[1] if transcoder else d_in
    _check_scaling(file)
    w_enc_DF, w_dec_FO = file.take("W_enc", d_in, width), file.take("W_dec", width, d_out)
    b_enc_F = file.take("b_enc", width)
    # Old files that nobody asked the question subtract it, transcoders never do.
    subtracts = not transcoder and bool(config.get("apply_b_dec_to_input", True))
    topk = None
    if architecture == "topk":
        topk = whole_number(where, "k", config.get("k", _activation_arguments(config).get("k")))
        if config.get("rescale_acts_by_decoder_norm"):
            w_enc_DF, w_dec_FO, b_enc_F = _unit_decoder(w_enc_DF, w_dec_FO, b_enc_F)
    return build_sae(
        _facts(folder, config, transcoder, told),
        w_enc_DF=w_enc_DF,
        w_dec_FO=w_dec_FO,
        b_enc_F=b_enc_F,
        b_dec_O=file.take("b_dec", d_out),
        threshold_F=file.take("threshold", width) if has_threshold else torch.zeros(width),
        apply_b_dec_to_input=subtracts,
        topk=topk,
        input_norm=_input_norm(where, config, transcoder),
        # Stored as [d_out, d_in].
        w_skip_DO=file.take("W_skip", d_out, d_in).t().contiguous() if "skip" in architecture else None,
    )


def _architecture(where: str, config: Mapping[str, Any]) -> str:
    architecture = str(config.get("architecture", "standard"))
    if architecture == "standard" and config.get("activation_fn_str", config.get("activation_fn")) == "topk":
        architecture = "topk"
    if architecture not in ARCHITECTURES:
        raise SaeError(
            f"{where}: architecture is {architecture!r}; {', '.join(ARCHITECTURES)} are read (a gated or "
            f"another kind encodes in ways that no threshold or k says)"
        )
    return architecture


def _activation_arguments(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("activation_fn_kwargs")
    return found if isinstance(found, dict) else {}


def _input_norm(where: str, config: Mapping[str, Any], transcoder: bool) -> InputNorm:
    how = config.get("normalize_activations")
    if how not in INPUT_NORMS:
        raise SaeError(
            f"{where}: normalize_activations is {how!r}, whose factors the file does not hold; fold them "
            f"into the weights with SAELens and save the dictionary again"
        )
    if transcoder and INPUT_NORMS[how] != "none":
        raise SaeError(f"{where}: a transcoder that normalises its input ({how!r}) is not read")
    return INPUT_NORMS[how]


def _check_scaling(file: TensorFile) -> None:
    factor_F = file.tensors.get("scaling_factor")
    if factor_F is not None and bool((factor_F != 1).any()):
        raise SaeError(
            f"{file.path}: has a scaling_factor other than 1; fold it into the decoder and save it again"
        )


def _unit_decoder(w_enc_DF: Tensor, w_dec_FO: Tensor, b_enc_F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of the decoder moved into the encoder, where features compete for their places among the k."""
    norm_F = w_dec_FO.norm(dim=1)
    norm_F = torch.where(norm_F > 0, norm_F, 1.0)
    return w_enc_DF * norm_F, w_dec_FO / norm_F[:, None], b_enc_F * norm_F


def _facts(folder: Path, config: Mapping[str, Any], transcoder: bool, told: Told) -> Facts:
    where = f"{folder / CONFIG_FILE}"
    nested = config.get("metadata")
    metadata: Mapping[str, Any] = {**config, **(nested if isinstance(nested, dict) else {})}
    kwargs = metadata.get("model_from_pretrained_kwargs")
    if isinstance(kwargs, dict) and kwargs.get("center_writing_weights"):
        raise SaeError(
            f"{where}: was trained on a stream whose mean TransformerLens takes out "
            f"(center_writing_weights); choose a dictionary trained on the model as it is"
        )
    hook, hook_point = read_hook(_hook_name(metadata, ""), f"{where}: hook_name", told)
    writes: tuple[str, ...] = ()
    if transcoder:
        name_out = _hook_name(metadata, "_out")
        if name_out is None:
            raise SaeError(f"{where}: a transcoder without hook_name_out; add the key")
        writes = read_hooks(name_out, f"{where}: hook_name_out")
    return Facts(
        name=described(folder),
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or str(metadata.get("model_name") or ""),
        writes=writes,
    )


def _hook_name(metadata: Mapping[str, Any], suffix: str) -> str | None:
    """Hugging Face's name for the hook where the file has it, which says more than TransformerLens's."""
    names = [metadata.get(f"hf_hook_name{suffix}"), metadata.get(f"hook_name{suffix}")]
    # Before version 6.
    names.append(metadata.get("hook_point") if not suffix else None)
    given = [str(name) for name in names if name]
    return next((name for name in given if find_hook(name)), given[-1] if given else None)
