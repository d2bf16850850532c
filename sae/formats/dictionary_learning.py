"""Owns the file layouts of dictionary_learning: `ae.pt` beside the trainer's `config.json`, and its fork's.

BatchTopK keeps the threshold that it learnt for inference; TopK keeps its k. The fork (jkminder's) saves
`model.safetensors`, may normalise activations with factors that it stores, and counts a JumpReLU's features
in units of their decoder's norm. Both are folded into the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, check_width, described, read_hook, whole_number
from ft_audit.sae.formats.files import TensorFile, read_config, read_safetensors, read_state_dict
from ft_audit.sae.jumprelu_sae import JumpReluSae

CONFIG_FILE, WEIGHTS_FILE, FORK_FILE = "config.json", "ae.pt", "model.safetensors"
CLASSES = (
    "AutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)
SUBMODULE = re.compile(
    r"(?P<site>resid_pre|resid_mid|resid_post|attn_out|attention_out|mlp_out)_layer_(?P<layer>\d+)"
)
NORM_EPS = 1e-8  # the fork's, where it divides


@dataclass(frozen=True, slots=True)
class _Weights:
    w_enc_DF: Tensor
    w_dec_FD: Tensor
    b_enc_F: Tensor
    b_dec_D: Tensor
    threshold_F: Tensor


def load_dictionary_learning(folder: Path, told: Told) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    fork = (folder / FORK_FILE).is_file()
    file = read_safetensors(folder / FORK_FILE) if fork else read_state_dict(folder / WEIGHTS_FILE)
    config = read_config(folder / CONFIG_FILE)
    nested = config.get("trainer")
    trainer: Mapping[str, Any] = nested if isinstance(nested, dict) else config
    kind = str(trainer.get("dict_class") or _guess_class(file))
    if kind not in CLASSES:
        raise SaeError(f"{folder / CONFIG_FILE}: dict_class is {kind!r}; {', '.join(CLASSES)} are read")
    weights = _read_weights(file, kind)
    check_width(f"{folder / CONFIG_FILE}: dict_size", trainer.get("dict_size"), weights.w_enc_DF.shape[1])
    subtracts = kind != "JumpReluAutoEncoder"
    if fork and kind == "JumpReluAutoEncoder":
        weights = _in_decoder_norms(weights)
    if bool(file.tensors.get("activation_mean", torch.tensor(torch.nan)).isfinite().all()):
        weights, subtracts = _normalising(weights, file, subtracts), False
    return build_sae(
        _facts(folder, config, trainer, told),
        w_enc_DF=weights.w_enc_DF,
        w_dec_FO=weights.w_dec_FD,
        b_enc_F=weights.b_enc_F,
        b_dec_O=weights.b_dec_D,
        threshold_F=weights.threshold_F,
        apply_b_dec_to_input=subtracts,
        topk=_read_k(folder, trainer, file) if kind == "AutoEncoderTopK" else None,
    )


def _guess_class(file: TensorFile) -> str:
    """The class whose tensors these are, for a config that does not say."""
    if file.tensors.get("encoder.weight", torch.empty(0)).dim() == 3:
        return "CrossCoder"
    if "threshold" not in file.tensors:
        return "AutoEncoder"
    return "JumpReluAutoEncoder" if file.tensors["threshold"].dim() else "BatchTopKSAE"


def _read_weights(file: TensorFile, kind: str) -> _Weights:
    if "W_enc" in file.tensors or "W_dec" in file.tensors:
        d_in, width = file.matrix_shape("W_enc")
        w_enc_DF, w_dec_FD = file.take("W_enc", d_in, width), file.take("W_dec", width, d_in)
        b_enc_F = file.take("b_enc", width)
    else:
        width, d_in = file.matrix_shape("encoder.weight")
        w_enc_DF = file.take("encoder.weight", width, d_in).t().contiguous()
        w_dec_FD = file.take("decoder.weight", d_in, width).t().contiguous()
        b_enc_F = file.take("encoder.bias", width)
    b_dec_D = file.take("bias" if kind == "AutoEncoder" else "b_dec", d_in)
    if kind == "JumpReluAutoEncoder":
        threshold_F = file.take("threshold", width)
    elif kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        threshold = float(file.take("threshold"))
        if threshold < 0:
            raise SaeError(
                f"{file.path}: the threshold is {threshold:g}, so training ended before one was learnt; "
                f"choose a later checkpoint"
            )
        threshold_F = torch.full((width,), threshold)
    else:
        threshold_F = torch.zeros(width)
    return _Weights(w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, threshold_F)


def _read_k(folder: Path, trainer: Mapping[str, Any], file: TensorFile) -> int:
    return whole_number(str(folder), "k", file.tensors.get("k", trainer.get("k")))


def _in_decoder_norms(weights: _Weights) -> _Weights:
    """f' = f * |w_dec|, decoded by a decoder of norm 1: the fork's `encode` and `decode`."""
    norm_F = weights.w_dec_FD.norm(dim=1)
    norm_F = torch.where(norm_F > 0, norm_F, 1.0)
    return _Weights(
        weights.w_enc_DF * norm_F,
        weights.w_dec_FD / norm_F[:, None],
        weights.b_enc_F * norm_F,
        weights.b_dec_D,
        weights.threshold_F * norm_F,
    )


def _normalising(weights: _Weights, file: TensorFile, subtracts: bool) -> _Weights:
    """Encodes `(x - mean) * scale` and puts both back: folded, so that x itself goes in and comes out.

    Features keep their values; a `b_dec` that is subtracted first is folded in too.
    """
    d_in = weights.b_dec_D.shape[0]
    mean_D = file.take("activation_mean", d_in)
    scale = float(file.take("activation_global_scale"))
    shift_D = mean_D.double() * scale + (weights.b_dec_D.double() if subtracts else 0.0)
    return _Weights(
        weights.w_enc_DF * scale,
        weights.w_dec_FD / (scale + NORM_EPS),
        (weights.b_enc_F.double() - shift_D @ weights.w_enc_DF.double()).float(),
        weights.b_dec_D / (scale + NORM_EPS) + mean_D,
        weights.threshold_F,
    )


def _facts(folder: Path, config: Mapping[str, Any], trainer: Mapping[str, Any], told: Told) -> Facts:
    lies = str(trainer.get("submodule_name") or "") + "/" + str(folder.absolute())
    found = SUBMODULE.search(lies)
    published = None
    if found:
        site = found["site"].replace("attention_out", "attn_out")
        published = f"{site}/{found['layer']}"
        if trainer.get("layer") not in (None, int(found["layer"])):
            raise SaeError(
                f"{folder / CONFIG_FILE}: layer is {trainer['layer']}, but the submodule is {found[0]}; "
                f"the files do not belong together, fetch them again"
            )
    hook, hook_point = read_hook(published, f"{folder / CONFIG_FILE}: submodule_name", told)
    return Facts(
        name=described(folder),
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or str(trainer.get("lm_name") or config.get("model_name") or ""),
    )
