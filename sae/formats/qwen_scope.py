"""Owns Qwen Scope's file layout: `layerN.sae.pt` in a repository whose name says the model, the width and k.

TopK over relu, of the residual stream after each block, without a bias subtracted first.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, read_hook, where_it_lies
from ft_audit.sae.formats.files import read_state_dict
from ft_audit.sae.jumprelu_sae import JumpReluSae

FILE = re.compile(r"layer(?P<layer>\d+)\.sae\.pt$")
REPOSITORY = re.compile(r"SAE-Res-(?P<model>[^/]+)-W(?P<kilo>\d+)K-L0_(?P<k>\d+)")


def load_qwen_scope(path: Path, told: Told) -> JumpReluSae:
    """The dictionary in one .sae.pt file, in float32 on the CPU; raises SaeError naming what does not fit."""
    file = read_state_dict(path)
    found, repository = FILE.search(path.name), REPOSITORY.search(where_it_lies(path))
    if repository is None:
        raise SaeError(
            f"{path}: k is in the repository's name alone; put the file into a folder that is called like "
            f"it, as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    width, d_in = file.matrix_shape("W_enc")
    if width != 1024 * int(repository["kilo"]):
        raise SaeError(
            f"{path}: W_enc has {width} features, but the repository is called {repository[0]}; the file "
            f"lies in the wrong folder, or is another's"
        )
    hook, hook_point = read_hook(f"resid_post/{found['layer']}" if found else None, str(path), told)
    facts = Facts(
        name=f"{repository[0]}-layer{found['layer']}" if found else path.stem,
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name or f"Qwen/{repository['model']}",
        l0=float(repository["k"]),
    )
    return build_sae(
        facts,
        w_enc_DF=file.take("W_enc", width, d_in).t(),
        w_dec_FO=file.take("W_dec", d_in, width).t(),
        b_enc_F=file.take("b_enc", width),
        b_dec_O=file.take("b_dec", d_in),
        threshold_F=torch.zeros(width),
        topk=int(repository["k"]),
    )
