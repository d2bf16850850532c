"""Owns what publishers call the places in a model, and the names that they have here.

A hook is `SITE/LAYER`, as in `resid_post/22`; the sites are those of the audit config. Publishers write
module paths of Hugging Face's models, or TransformerLens's names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ft_audit.errors import SaeError

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_in", "mlp_out")
OWN = re.compile(rf"(?P<site>{'|'.join(SITES)})/(?P<layer>\d+)")
IN_A_BLOCK = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(?P<layer>\d+)\.(?P<rest>.+)$")
SEVERAL = re.compile(r"\{(?P<layers>\d+(?:,\d+)*)\}")
SITE_OF = {
    # Hugging Face, as Gemma Scope 2 writes it.
    "input": "resid_pre",
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_z",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
    # TransformerLens.
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "attn_z",
    "hook_attn_out": "attn_out",
    "mlp.hook_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
}
NOWHERE = {
    "hook_mlp_in": "means the stream before the MLP's norm to some and what the norm makes of it to others",
    "ln1.hook_normalized": "is a normed stream without the norm's weights, which no hook here reads",
    "ln2.hook_normalized": "is a normed stream without the norm's weights, which no hook here reads",
}
# How a hook is written in Gemma Scope 2's config; what it does not have keeps the name it has here.
GEMMA_NAMES = {
    "resid_pre": "model.layers.{}.input",
    "resid_post": "model.layers.{}.output",
    "attn_z": "model.layers.{}.self_attn.o_proj.input",
    "mlp_in": "model.layers.{}.pre_feedforward_layernorm.output",
    "mlp_out": "model.layers.{}.post_feedforward_layernorm.output",
}


def read_hooks(text: object, where: str) -> tuple[str, ...]:
    """The hooks that a published name stands for: one, or several for `model.layers.{5,9}.output`.

    Raises SaeError, which says `where` the name came from, for a place that no hook reads.
    """
    name = str(text)
    several = SEVERAL.search(name)
    if several:
        names = [name.replace(several[0], layer) for layer in several["layers"].split(",")]
        return tuple(_read_hook(one, where) for one in names)
    return (_read_hook(name, where),)


def split_hook(hook: str) -> tuple[int, str]:
    """Layer and site of a hook."""
    site, _, layer = hook.partition("/")
    return int(layer), site


def gemma_name(hooks: Sequence[str]) -> str:
    """The hooks in the terms of Gemma Scope 2's config; they share their site."""
    layers, sites = zip(*(split_hook(hook) for hook in hooks), strict=True)
    assert len(set(sites)) == 1, sites
    layer = str(layers[0]) if len(layers) == 1 else "{" + ",".join(map(str, layers)) + "}"
    site = str(sites[0])
    return GEMMA_NAMES.get(site, site + "/{}").format(layer)


def find_hook(name: str) -> str | None:
    """The hook that a published name stands for; None where no hook reads that place."""
    if OWN.fullmatch(name):
        return name
    found = IN_A_BLOCK.search(name)
    site = SITE_OF.get(found["rest"]) if found else None
    return f"{site}/{found['layer']}" if found and site else None


def _read_hook(name: str, where: str) -> str:
    hook = find_hook(name)
    if hook is None:
        found = IN_A_BLOCK.search(name)
        unread = f"is none of the places that can be read ({', '.join(SITES)})"
        why = NOWHERE.get(found["rest"], unread) if found else unread
        raise SaeError(
            f"{where} is {name!r}, which {why}; choose another dictionary, or say what it reads with "
            f"`ft-audit sae convert SRC DST --hook resid_post/22`"
        )
    return hook
