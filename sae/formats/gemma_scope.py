"""Owns Gemma Scope 2's file layout, which is also this project's own: `config.json` beside the tensors.

Input scale and pre-encoder `b_dec` are folded in, so nothing is normalised or subtracted at inference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.digest import hashed
from ft_audit.sae.formats.build import NOTHING_TOLD, Told, build_sae, check_width
from ft_audit.sae.formats.files import read_config, read_safetensors
from ft_audit.sae.formats.gemma_scope_config import CONFIG_FILE, read_activation, read_facts, read_kind
from ft_audit.sae.formats.gemma_scope_crosscoder import is_crosscoder, read_crosscoder, split_crosscoder
from ft_audit.sae.hook_names import gemma_name
from ft_audit.sae.jumprelu_sae import JumpReluSae, is_bfloat16_exact

PARAMS_FILE = "params.safetensors"
TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
SKIP = "affine_skip_connection"


def load_gemma_scope(folder: Path, told: Told = NOTHING_TOLD) -> JumpReluSae:
    """The dictionary in `folder`, in float32 on the CPU; raises SaeError naming what does not fit."""
    config = read_config(folder / CONFIG_FILE)
    kind, by_layer = read_kind(folder, config), is_crosscoder(folder)
    if (kind == "crosscoder") != by_layer:
        lies = "one file a layer" if by_layer else f"{PARAMS_FILE} alone"
        raise SaeError(f"{folder}: is a {kind}, but has its tensors in {lies}; fetch the whole folder again")
    single = None if by_layer else _read_single(folder / PARAMS_FILE, transcoder=kind == "transcoder")
    facts = read_facts(folder, config, told)
    tensors = single or read_crosscoder(folder, len(facts.inputs))
    if config.get("affine_connection") and SKIP not in tensors:
        raise SaeError(f"{folder}: misses the {SKIP} that {CONFIG_FILE} speaks of; fetch both again")
    width = tensors["w_enc"].shape[1]
    if config.get("width") is None:
        check_width(str(folder), folder.resolve().name, width)
    elif kind != "crosscoder" or config["width"] != width // len(facts.inputs):
        # Of a crosscoder, the latents of one layer count as well as all of them.
        check_width(f"{folder / CONFIG_FILE}", config["width"], width)
    topk, input_norm = read_activation(folder, config)
    return build_sae(
        facts,
        w_enc_DF=tensors["w_enc"],
        w_dec_FO=tensors["w_dec"],
        b_enc_F=tensors["b_enc"],
        b_dec_O=tensors["b_dec"],
        threshold_F=tensors["threshold"],
        topk=topk,
        input_norm=input_norm,
        w_skip_DO=tensors.get(SKIP),
    )


def save_gemma_scope(folder: Path, sae: JumpReluSae, extra: Mapping[str, Any]) -> None:
    """Writes `sae` to `folder`, with `extra` keys in its config.json.

    A matrix whose values are all exact in bfloat16 is stored so, at half the size; nothing is rounded. Keys
    that Gemma Scope does not have stand only where a dictionary needs them: `k` and `input_norm`. Raises
    SaeError for a crosscoder that does not fit the layout.
    """
    sae = folded(sae)
    spec = sae.spec
    config = {
        "hf_hook_point_in": gemma_name(spec.inputs) if spec.also_reads else spec.hook_point,
        "hf_hook_point_out": gemma_name(spec.outputs) if spec.kind != "sae" else spec.hook_point,
        "width": spec.width,
        "model_name": spec.model_name,
        "architecture": "jump_relu" if sae.topk is None else "topk",
        "l0": spec.l0,
        "affine_connection": sae.w_skip_DO is not None,
        "type": spec.kind,
        "name": spec.name,
        **({"k": sae.topk} if sae.topk is not None else {}),
        **({"input_norm": sae.input_norm} if sae.input_norm != "none" else {}),
        **extra,
    }
    files = split_crosscoder(sae) if spec.kind == "crosscoder" else {PARAMS_FILE: _single(sae)}
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.tmp" for name in files}
    for name, tensors in files.items():
        save_file({key: _compact(key, tensor) for key, tensor in tensors.items()}, partial[name])
        # safetensors writes files that only their owner can read; a dictionary is shared like its config.
        partial[name].chmod(0o644)
        with partial[name].open("rb") as written:
            os.fsync(written.fileno())
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    # The tensors come last: a folder that has them has its config too.
    for name in files:
        partial[name].replace(folder / name)


def folded(sae: JumpReluSae) -> JumpReluSae:
    """The dictionary with a `b_dec` that it subtracts first moved into `b_enc`, as the layout asks."""
    if not sae.apply_b_dec_to_input:
        return sae
    b_enc_F = (sae.b_enc_F.double() - sae.b_dec_D.double() @ sae.w_enc_DF.double()).float()
    return hashed(replace(sae, b_enc_F=b_enc_F, apply_b_dec_to_input=False))


def _read_single(path: Path, *, transcoder: bool) -> dict[str, Tensor]:
    file = read_safetensors(path)
    file.need(*TENSORS)
    if SKIP in file.tensors and not transcoder:
        raise SaeError(f"{path}: has an {SKIP}, but {CONFIG_FILE} says that it is no transcoder")
    d_in, width = file.matrix_shape("w_enc")
    d_out = file.matrix_shape("w_dec")[1] if transcoder else d_in
    shapes = {"w_enc": (d_in, width), "w_dec": (width, d_out), "b_enc": (width,), "b_dec": (d_out,)}
    shapes |= {"threshold": (width,)} | ({SKIP: (d_in, d_out)} if SKIP in file.tensors else {})
    return {name: file.take(name, *shape) for name, shape in shapes.items()}


def _single(sae: JumpReluSae) -> dict[str, Tensor]:
    tensors = {
        "w_enc": sae.w_enc_DF,
        "w_dec": sae.w_dec_FD,
        "b_enc": sae.b_enc_F,
        "b_dec": sae.b_dec_D,
        "threshold": sae.threshold_F,
    }
    return tensors | ({SKIP: sae.w_skip_DO} if sae.w_skip_DO is not None else {})


def _compact(name: str, tensor: Tensor) -> Tensor:
    matrix = name in ("w_enc", "w_dec", SKIP)
    return (tensor.bfloat16() if matrix and is_bfloat16_exact(tensor) else tensor).contiguous()
