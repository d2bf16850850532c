"""Owns the file an interrupted training goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.batch_topk import BatchTopK

NAMES = ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D")


def write_checkpoint(path: Path, identity: str, model: BatchTopK, step: int, threshold: float) -> None:
    """Replaces `path` in one step, so that a kill leaves the old checkpoint or the new one."""
    tensors: dict[str, Tensor] = {"silent_F": model.silent_F}
    for name, parameter in zip(NAMES, model.parameters, strict=True):
        state = model.optimiser.state[parameter]
        tensors |= {
            name: parameter,
            f"{name}.exp_avg": state["exp_avg"],
            f"{name}.exp_avg_sq": state["exp_avg_sq"],
            f"{name}.step": state["step"].reshape(1),
        }
    state_json = json.dumps(
        {"identity": identity, "step": step, "threshold": threshold, "guess": model.guess}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    save_file(tensors, partial, metadata={"state": state_json})
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(path)


def read_checkpoint(path: Path, identity: str, model: BatchTopK) -> tuple[int, float]:
    """Fills `model` from `path` and returns the step and the threshold average it stood at.

    Raises SaeError when the file is damaged or belongs to another recipe.
    """
    fix = "delete it to train from the start"
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise SaeError(f"{path}: not a readable training checkpoint ({error}); {fix}") from error
    if state["identity"] != identity:
        raise SaeError(f"{path}: a checkpoint of another recipe; {fix}, or restore the recipe it was made by")
    with torch.no_grad():
        model.silent_F.copy_(tensors["silent_F"])
        for name, parameter in zip(NAMES, model.parameters, strict=True):
            parameter.copy_(tensors[name])
            model.optimiser.state[parameter] = {
                "step": tensors[f"{name}.step"].reshape(()).to(parameter.device),
                "exp_avg": tensors[f"{name}.exp_avg"].to(parameter.device),
                "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(parameter.device),
            }
    model.guess = float(state["guess"])
    return int(state["step"]), float(state["threshold"])
