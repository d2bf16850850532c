"""Owns Gemma Scope 1's file layout: `params.npz` in `layer_L/width_W/average_l0_N/`, all else in the names.

As in Gemma Scope 2, nothing is normalised or subtracted at inference.
"""

from __future__ import annotations

import re
from pathlib import Path

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, check_width, read_hook, where_it_lies
from ft_audit.sae.formats.files import read_npz
from ft_audit.sae.jumprelu_sae import JumpReluSae

PARAMS_FILE = "params.npz"
REPOSITORY = re.compile(r"gemma-scope-(?P<size>2b|9b|27b)-(?P<variant>pt|it)-(?P<suite>[a-z]+)")
LAYER = re.compile(r"/layer_(?P<layer>\d+)/")
L0 = re.compile(r"/average_l0_(?P<l0>\d+)/?$")
SITE_OF_SUITE = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z"}


def load_gemma_scope_1(folder: Path, told: Told) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    file, lies = read_npz(folder / PARAMS_FILE), where_it_lies(folder)
    d_in, width = file.matrix_shape("W_enc")
    check_width(str(folder), lies, width)
    if "scaling_factor" in file.tensors and bool((file.tensors["scaling_factor"] != 1).any()):
        raise SaeError(f"{file.path}: has a scaling_factor other than 1, which no published one uses")
    repository, l0 = REPOSITORY.search(lies), L0.search(lies)
    model_name = f"google/gemma-2-{repository['size']}" if repository else ""
    if repository and repository["variant"] == "it":
        model_name += "-it"
    hook, hook_point = read_hook(_hook(folder, lies), str(folder), told)
    facts = Facts(
        name="-".join(folder.absolute().parts[-3:]),
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or model_name,
        l0=float(l0["l0"]) if l0 else None,
    )
    return build_sae(
        facts,
        w_enc_DF=file.take("W_enc", d_in, width),
        w_dec_FO=file.take("W_dec", width, d_in),
        b_enc_F=file.take("b_enc", width),
        b_dec_O=file.take("b_dec", d_in),
        threshold_F=file.take("threshold", width),
    )


def _hook(folder: Path, lies: str) -> str | None:
    """The hook that repository and folder name; None where they do not."""
    repository, layer = REPOSITORY.search(lies), LAYER.search(lies)
    if not repository or not layer:
        return None
    if repository["suite"] not in SITE_OF_SUITE:
        raise SaeError(
            f"{folder}: the {repository['suite']} of Gemma Scope 1 read a normed stream without the norm's "
            f"weights, which no hook here reads; choose one of res, mlp and att, or Gemma Scope 2"
        )
    return f"{SITE_OF_SUITE[repository['suite']]}/{layer['layer']}"
