"""Owns OpenAI's autoencoders of GPT-2 small: one state dict a layer, `LOCATION_v5_32k/autoencoders/8.pt`.

`latents = activation(encoder(x - pre_bias) + latent_bias)`; TopK goes with inputs that are layer-normed, as
its authors' code has it (Gao et al. 2024, arXiv 2406.04093).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Facts, Told, build_sae, read_hook, whole_number
from ft_audit.sae.formats.files import TensorFile, read_state_dict
from ft_audit.sae.jumprelu_sae import JumpReluSae

LIES = re.compile(r"(?P<location>\w+?)(?P<version>_v\d\w*)?/autoencoders/(?P<layer>\d+)\.pt$")
SITE_OF = {
    "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_post",
    "resid_delta_attn": "attn_out",
    "resid_delta_mlp": "mlp_out",
}


def load_openai(path: Path, told: Told) -> JumpReluSae:
    """The dictionary in one .pt file, in float32 on the CPU; raises SaeError naming what does not fit."""
    file = read_state_dict(path)
    width, d_in = file.matrix_shape("encoder.weight")
    topk = _topk(file)
    found = LIES.search(str(path.absolute()))
    site = SITE_OF.get(found["location"], found["location"]) if found else ""
    published = f"{site}/{found['layer']}" if found else None
    hook, hook_point = read_hook(published, f"{path}: the file's place", told)
    facts = Facts(
        name=f"{found['location']}{found['version'] or ''}-{found['layer']}" if found else path.stem,
        hook_point=hook_point,
        inputs=(hook,),
        model_name=told.model_name
        or ("openai-community/gpt2" if "gpt2-small" in str(path.absolute()) else ""),
    )
    return build_sae(
        facts,
        w_enc_DF=file.take("encoder.weight", width, d_in).t(),
        w_dec_FO=file.take("decoder.weight", d_in, width).t(),
        b_enc_F=file.take("latent_bias", width),
        b_dec_O=file.take("pre_bias", d_in),
        threshold_F=torch.zeros(width),
        apply_b_dec_to_input=True,
        topk=topk,
        input_norm="none" if topk is None else "layer_norm",
    )


def _topk(file: TensorFile) -> int | None:
    activation: Any = file.other.get("activation", "ReLU")
    if activation == "ReLU":
        return None
    settings = file.other.get("activation_state_dict")
    settings = settings if isinstance(settings, dict) else {}
    if activation != "TopK" or settings.get("postact_fn", "ReLU") != "ReLU":
        after = f" with {settings['postact_fn']}" if "postact_fn" in settings else ""
        raise SaeError(f"{file.path}: activation is {activation!r}{after}; ReLU and TopK are read")
    return whole_number(str(file.path), "activation_state_dict.k", settings.get("k"))
