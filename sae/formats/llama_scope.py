"""Owns Llama Scope's file layout: `hyperparams.json` beside `checkpoints/final.safetensors`.

Training saw `x * sqrt(d) / norm`, `norm` being the data set's average; activations here are in that unit, as
SAELens and Neuronpedia have them. The one threshold is stored in the unit of the residual stream; features
are held against it times the norm of their decoder (He et al. 2024, arXiv 2410.20526, and its code).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, check_width, read_hook
from ft_audit.sae.formats.files import read_config, read_safetensors
from ft_audit.sae.jumprelu_sae import JumpReluSae

CONFIG_FILE, WEIGHTS_FILE = "hyperparams.json", "checkpoints/final.safetensors"


def load_llama_scope(folder: Path, told: Told) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    config, file = read_config(folder / CONFIG_FILE), read_safetensors(folder / WEIGHTS_FILE)
    where = str(folder / CONFIG_FILE)
    width, d_in = file.matrix_shape("encoder.weight")
    check_width(f"{where}: d_sae", config.get("d_sae"), width)
    if config.get("act_fn") != "jumprelu":
        raise SaeError(f"{where}: act_fn is {config.get('act_fn')!r}; only jumprelu is read")
    if config.get("apply_decoder_bias_to_pre_encoder") or config.get("use_glu_encoder"):
        raise SaeError(f"{where}: has a pre-encoder bias or a gated encoder, which are not read")
    read, written = config.get("hook_point_in"), config.get("hook_point_out")
    hook, hook_point = read_hook(str(read) if read else None, f"{where}: hook_point_in", told)
    if written not in (None, read):
        raise SaeError(f"{where}: reads {read} and reconstructs {written}; its transcoders are not read")
    scale = d_in**0.5 / _positive(where, config.get("dataset_average_activation_norm"), "in")
    threshold = _positive(where, config, "jump_relu_threshold") * scale
    w_enc_DF = file.take("encoder.weight", width, d_in).t() * scale
    w_dec_FD = file.take("decoder.weight", d_in, width).t() / scale
    b_enc_F = file.take("encoder.bias", width)
    if config.get("sparsity_include_decoder_norm", True):
        norm_F = w_dec_FD.norm(dim=1) * scale
        norm_F = torch.where(norm_F > 0, norm_F, 1.0)
        w_enc_DF, w_dec_FD, b_enc_F = w_enc_DF * norm_F, w_dec_FD / norm_F[:, None], b_enc_F * norm_F
    l0 = config.get("top_k")
    facts = Facts(
        name=folder.absolute().name,
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or "meta-llama/Llama-3.1-8B",
        l0=float(l0) if isinstance(l0, int | float) else None,
    )
    return build_sae(
        facts,
        w_enc_DF=w_enc_DF,
        w_dec_FO=w_dec_FD,
        b_enc_F=b_enc_F,
        b_dec_O=file.take("decoder.bias", d_in) / scale,
        threshold_F=torch.full((width,), threshold),
    )


def _positive(where: str, values: object, key: str) -> float:
    value = values.get(key) if isinstance(values, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise SaeError(f"{where}: {key} is {value!r}; expected a positive number; fetch it again")
    return float(value)
