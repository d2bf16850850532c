"""Owns what Gemma Scope 2 says of a dictionary beside its tensors: `config.json`, else the folder's place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu.input_norm import InputNorm
from ft_audit.sae.formats.build import Facts, Told, read_hook, where_it_lies, whole_number
from ft_audit.sae.hook_names import gemma_name, read_hooks
from ft_audit.sae.jumprelu_sae import PairReading

CONFIG_FILE = "config.json"
KINDS = ("sae", "transcoder", "crosscoder")
# What `sae train` makes of two models; never published by Gemma Scope.
PAIR_KINDS: dict[str, PairReading] = {"pair_difference": "difference", "pair_crosscoder": "crosscoder"}
FOLDER_NAME = re.compile(r"^layer_(?P<layers>\d+(?:_\d+)*)_width_")
REPOSITORY = re.compile(r"gemma-scope-2-(?P<model>(?:270m|1b|4b|12b|27b)-(?:pt|it))")
# The folder above, without `_all` -> what its dictionaries read, and reconstruct if that is another place.
SUITES = {
    "resid_post": ("resid_post", None),
    "attn_out": ("attn_z", None),
    "mlp_out": ("mlp_out", None),
    "transcoder": ("mlp_in", "mlp_out"),
    "crosscoder": ("resid_post", None),
}


def read_facts(folder: Path, config: Mapping[str, Any], told: Told) -> Facts:
    """Name, hooks and model of the dictionary in `folder`; raises SaeError naming what is missing."""
    where = f"{folder / CONFIG_FILE}: hf_hook_point_in"
    published_in, published_out = _hook_points(folder, config)
    writes: tuple[str, ...] = ()
    if published_in is None or read_kind(folder, config) != "crosscoder":
        hook, hook_point = read_hook(published_in, where, told)
        inputs: tuple[str, ...] = (hook,)
    else:
        inputs, hook_point = read_hooks(published_in, where), published_in
    if read_kind(folder, config) == "transcoder":
        if published_out is None:
            raise SaeError(f"{folder / CONFIG_FILE}: a transcoder without hf_hook_point_out; add the key")
        writes = read_hooks(published_out, f"{folder / CONFIG_FILE}: hf_hook_point_out")
    l0 = config.get("l0")
    return Facts(
        name=str(config.get("name") or _name(folder)),
        hook_point=hook_point,
        inputs=inputs,
        model_name=told.model_name or _model_name(folder, config),
        l0=float(l0) if isinstance(l0, int | float) else None,
        writes=writes,
        pair=PAIR_KINDS.get(read_kind(folder, config)),
    )


def read_kind(folder: Path, config: Mapping[str, Any]) -> str:
    """The kind of dictionary; raises SaeError for what is published beside those that are read."""
    kind = config.get("type")
    if kind is None:
        suite = _suite(folder)
        kind = suite if suite in KINDS else "sae"
    if kind not in (*KINDS, *PAIR_KINDS):
        raise SaeError(
            f"{folder / CONFIG_FILE}: type is {kind!r}; {', '.join(KINDS)} are read, choose one from "
            f"resid_post/, transcoder/ or crosscoder/ of the same release"
        )
    return str(kind)


def read_activation(folder: Path, config: Mapping[str, Any]) -> tuple[int | None, InputNorm]:
    """How many features may fire on a token, if that is limited, and what is done to tokens first.

    Only `jump_relu` is published; `topk` and `input_norm` are what `sae convert` writes beside it.
    """
    where = str(folder / CONFIG_FILE)
    architecture, how = config.get("architecture", "jump_relu"), config.get("input_norm", "none")
    if architecture not in ("jump_relu", "topk"):
        raise SaeError(f"{where}: architecture is {architecture!r}; jump_relu and topk are read")
    if how not in ("none", "layer_norm", "unit_rms"):
        raise SaeError(f"{where}: input_norm is {how!r}; none, layer_norm and unit_rms are read")
    return (whole_number(where, "k", config.get("k")) if architecture == "topk" else None), how


def _hook_points(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What is read and what is reconstructed, as published or as the folder's place says."""
    published_in, published_out = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    found, suite = FOLDER_NAME.search(folder.resolve().name), _suite(folder)
    if found and suite is not None:
        read, written = SUITES[suite]
        layers = found["layers"].split("_")
        published_in = published_in or gemma_name([f"{read}/{layer}" for layer in layers])
        if written is not None:
            published_out = published_out or gemma_name([f"{written}/{layer}" for layer in layers])
    return (
        str(published_in) if published_in is not None else None,
        str(published_out) if published_out is not None else None,
    )


def _suite(folder: Path) -> str | None:
    suite = folder.resolve().parent.name.removesuffix("_all")
    return suite if suite in SUITES else None


def _name(folder: Path) -> str:
    """The folder's name; those of a layer's other sites and of its transcoders are called alike."""
    own, suite = folder.resolve().name, _suite(folder)
    return own if suite in (None, "resid_post") else f"{folder.resolve().parent.name}-{own}"


def _model_name(folder: Path, config: Mapping[str, Any]) -> str:
    """Published configs write `gemma-v3`, drop the owner and give the 270m model a suffix that it has not."""
    name = str(config.get("model_name") or "")
    if not name:
        repository = REPOSITORY.search(where_it_lies(folder))
        name = f"gemma-3-{repository['model']}" if repository else ""
    name = re.sub(r"gemma-?v?-?3", "gemma-3", name)
    if "gemma-3-270m" in name:
        name = name.removesuffix("-pt")
    return f"google/{name}" if name.startswith("gemma-3") else name
