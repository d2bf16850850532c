"""Owns Gemma Scope 2's file layout: one folder with `config.json` and `params.safetensors`.

Its input scale and pre-encoder `b_dec` are folded in, so nothing is normalised or subtracted at inference.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.digest import sae_digest
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec, is_bfloat16_exact

CONFIG_FILE = "config.json"
PARAMS_FILE = "params.safetensors"
TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS = {"k": 1 << 10, "m": 1 << 20}
FOLDER_NAME = re.compile(r"layer_(?P<layer>\d+)_width_(?P<width>\d+)(?P<unit>[km])?(?:_l0_(?P<l0>\w+))?")
HOOK_POINT = re.compile(r"(?:^|\.)layers\.(?P<layer>\d+)\.(?P<rest>.+)$")


def load_gemma_scope(folder: Path) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    tensors = _read_tensors(folder / PARAMS_FILE)
    config = _read_config(folder / CONFIG_FILE)
    kind, architecture = config.get("type", "sae"), config.get("architecture", "jump_relu")
    if kind != "sae":
        raise SaeError(
            f"{folder / CONFIG_FILE}: type is {kind!r}; only plain dictionaries are supported, choose one "
            f"from resid_post/ of the same release"
        )
    if architecture != "jump_relu":
        raise SaeError(f"{folder / CONFIG_FILE}: architecture is {architecture!r}; only jump_relu is read")
    if config.get("affine_connection") or "affine_skip_connection" in tensors:
        raise SaeError(f"{folder}: has an affine skip connection; choose the folder without '_affine'")
    _check_tensors(folder / PARAMS_FILE, tensors)
    named = {name: tensors[name].float().contiguous() for name in TENSORS}
    d_in, width = named["w_enc"].shape
    if config.get("width") not in (None, width):
        raise SaeError(
            f"{folder / CONFIG_FILE}: width is {config['width']}, but w_enc in {PARAMS_FILE} has {width} "
            f"features; the two files do not belong together, fetch both again"
        )
    layer, site, hook_point = _hook(folder, config)
    l0 = config.get("l0")
    spec = SaeSpec(
        name=str(config.get("name", folder.resolve().name)),
        layer=layer,
        site=site,
        hook_point=hook_point,
        width=width,
        d_in=d_in,
        model_name=_model_name(str(config.get("model_name", ""))),
        l0=float(l0) if isinstance(l0, int | float) else None,
        sha256=sae_digest(
            named["w_enc"], named["w_dec"], named["b_enc"], named["b_dec"], named["threshold"], False
        ),
    )
    return JumpReluSae(
        spec,
        w_enc_DF=named["w_enc"],
        w_dec_FD=named["w_dec"],
        b_enc_F=named["b_enc"],
        b_dec_D=named["b_dec"],
        threshold_F=named["threshold"],
        apply_b_dec_to_input=False,
    )


def save_gemma_scope(folder: Path, sae: JumpReluSae, extra: dict[str, Any]) -> None:
    """Writes `sae` to `folder`, with `extra` keys in its config.json.

    A matrix whose values are all exact in bfloat16 is stored so, at half the size; nothing is rounded.
    """
    if sae.apply_b_dec_to_input:
        folded = sae.b_enc_F.double() - sae.b_dec_D.double() @ sae.w_enc_DF.double()
        b_enc_F = folded.float()
    else:
        b_enc_F = sae.b_enc_F
    tensors = {
        "w_enc": _compact(sae.w_enc_DF),
        "w_dec": _compact(sae.w_dec_FD),
        "b_enc": b_enc_F.contiguous(),
        "b_dec": sae.b_dec_D.contiguous(),
        "threshold": sae.threshold_F.contiguous(),
    }
    config = {
        "hf_hook_point_in": sae.spec.hook_point,
        "hf_hook_point_out": sae.spec.hook_point,
        "width": sae.spec.width,
        "model_name": sae.spec.model_name,
        "architecture": "jump_relu",
        "l0": sae.spec.l0,
        "affine_connection": False,
        "type": "sae",
        "name": sae.spec.name,
        **extra,
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (PARAMS_FILE + ".tmp")
    save_file(tensors, partial)
    # safetensors writes files that only their owner can read; a dictionary is shared like its config.
    partial.chmod(0o644)
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # The tensors come last: a folder that has them has its config too.
    partial.replace(folder / PARAMS_FILE)


def _compact(tensor: Tensor) -> Tensor:
    return (tensor.bfloat16() if is_bfloat16_exact(tensor) else tensor).contiguous()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SaeError(f"{path}: no such file; a dictionary folder holds {CONFIG_FILE} and {PARAMS_FILE}")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SaeError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error


def _read_config(path: Path) -> dict[str, Any]:
    """The config, or {} where the folder has none: some published folders do not."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SaeError(f"{path}: not readable JSON ({error}); fetch or copy it again") from error
    if not isinstance(config, dict):
        raise SaeError(f"{path}: expected a JSON object, found {type(config).__name__}; fetch it again")
    return config


def _check_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    missing = [name for name in TENSORS if name not in tensors]
    if missing:
        raise SaeError(
            f"{path}: misses {', '.join(missing)} (has {', '.join(sorted(tensors)) or 'nothing'}); "
            f"a JumpReLU dictionary has {', '.join(TENSORS)}"
        )
    if tensors["w_enc"].dim() != 2:
        raise SaeError(f"{path}: w_enc has shape {tuple(tensors['w_enc'].shape)}; expected [d_in, width]")
    d_in, width = tensors["w_enc"].shape
    shapes = {"w_enc": (d_in, width), "w_dec": (width, d_in), "b_enc": (width,), "b_dec": (d_in,)}
    shapes["threshold"] = (width,)
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise SaeError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, w_enc {(d_in, width)} asks for {shape}; "
                f"crosscoders and transposed files are not supported"
            )
        if tensor.dtype not in DTYPES:
            raise SaeError(f"{path}: {name} is {tensor.dtype}; expected one of {', '.join(map(str, DTYPES))}")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise SaeError(
                f"{path}: {name} has {bad} NaN or infinite values of {tensor.numel()}; get it anew"
            )


def _hook(folder: Path, config: dict[str, Any]) -> tuple[int, str, str]:
    """Layer, site and hook point, from config.json or else from the folder's name."""
    hook_point = config.get("hf_hook_point_in")
    if hook_point is None:
        found = FOLDER_NAME.search(folder.resolve().name)
        if not found:
            raise SaeError(
                f"{folder}: {CONFIG_FILE} names no hf_hook_point_in and the folder's name is not of the form "
                f"layer_22_width_16k_l0_medium; add the key, for example 'model.layers.22.output'"
            )
        hook_point = f"model.layers.{found['layer']}.output"
    match = HOOK_POINT.search(str(hook_point))
    if not match:
        raise SaeError(
            f"{folder / CONFIG_FILE}: hf_hook_point_in is {hook_point!r}; expected model.layers.L.output"
        )
    if match["rest"] != "output":
        raise SaeError(
            f"{folder / CONFIG_FILE}: hf_hook_point_in is {hook_point!r}; only the block output "
            f"'model.layers.{match['layer']}.output' (resid_post) is supported"
        )
    return int(match["layer"]), "resid_post", str(hook_point)


def _model_name(name: str) -> str:
    """Published configs write `gemma-v3` and drop the owner; both are mended."""
    name = name.replace("gemma-v3", "gemma-3")
    return f"google/{name}" if name.startswith("gemma-3") else name
