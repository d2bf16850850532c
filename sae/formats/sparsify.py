"""Owns the layout of EleutherAI's sparsify: `cfg.json` and `sae.safetensors` in a folder named as a module.

TopK over relu. An autoencoder subtracts `b_dec` first, a transcoder does not. The module says what is read:
`layers.5` is a block's output, `layers.5.mlp` what that half adds; a transcoder reads the module's input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, check_width, described, read_hook, whole_number
from ft_audit.sae.formats.files import read_config, read_safetensors
from ft_audit.sae.jumprelu_sae import JumpReluSae

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae.safetensors"
TRAINING_FILE = "config.json"  # in the folder above
MODULE = re.compile(r"(?:^|\.)(?:layers|h|blocks)[._](?P<layer>\d+)(?:\.(?P<part>\w+))?$")
# Part of a block -> what is there after it, and before it.
SITES = {
    None: ("resid_post", "resid_pre"),
    "mlp": ("mlp_out", "mlp_in"),
    "self_attn": ("attn_out", None),
    "attn": ("attn_out", None),
    "attention": ("attn_out", None),
}
# Their block adds not what the module gives but what the norm after it makes of that.
NORMED_HALVES = re.compile(r"gemma-?[23]|olmo-?2|glm-?4", re.IGNORECASE)


def load_sparsify(folder: Path, told: Told) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    config, file = read_config(folder / CONFIG_FILE), read_safetensors(folder / WEIGHTS_FILE)
    where = str(folder / CONFIG_FILE)
    if config.get("activation", "topk") != "topk" or config.get("signed"):
        kind = "signed topk" if config.get("signed") else config["activation"]
        raise SaeError(f"{where}: activation is {kind!r}; only topk is read")
    width, d_in = file.matrix_shape("encoder.weight")
    check_width(f"{where}: num_latents", config.get("num_latents") or None, width)
    transcode = bool(config.get("transcode"))
    skip = file.take("W_skip", d_in, d_in).t().contiguous() if "W_skip" in file.tensors else None
    if bool(config.get("skip_connection")) != (skip is not None) or (skip is not None and not transcode):
        raise SaeError(f"{folder}: skip_connection in {CONFIG_FILE} and W_skip in {WEIGHTS_FILE} disagree")
    return build_sae(
        _facts(folder, transcode, told),
        w_enc_DF=file.take("encoder.weight", width, d_in).t(),
        w_dec_FO=file.take("W_dec", width, d_in),
        b_enc_F=file.take("encoder.bias", width),
        b_dec_O=file.take("b_dec", d_in),
        threshold_F=torch.zeros(width),
        apply_b_dec_to_input=not transcode,
        topk=whole_number(where, "k", config.get("k")),
        w_skip_DO=skip,
    )


def _facts(folder: Path, transcode: bool, told: Told) -> Facts:
    training: Mapping[str, Any] = read_config(folder.absolute().parent / TRAINING_FILE)
    model_name = str(training.get("model") or "")
    read, written = _sites(folder, transcode, model_name)
    hook, hook_point = read_hook(read, f"{folder}: the folder's name", told)
    if transcode and written is None:
        raise SaeError(f"{folder}: a transcoder whose folder is not named after a module, as layers.5.mlp is")
    return Facts(
        name=described(folder),
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or model_name,
        writes=(written,) if transcode and written else (),
    )


def _sites(folder: Path, transcode: bool, model_name: str) -> tuple[str | None, str | None]:
    """The hooks that a module's name stands for: what is read, and what a transcoder reconstructs."""
    found = MODULE.search(folder.absolute().name)
    after, before = SITES.get(found["part"], (None, None)) if found else (None, None)
    if found is None or after is None or (transcode and before is None):
        return None, None
    if found["part"] is not None and NORMED_HALVES.search(model_name):
        raise SaeError(
            f"{folder}: reconstructs the {found['part']} of {model_name} before the norm that follows it, "
            f"which no hook here reads; choose a dictionary of the residual stream"
        )
    layer = found["layer"]
    return f"{before if transcode else after}/{layer}", f"{after}/{layer}"
