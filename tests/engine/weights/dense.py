"""The definition: both models loaded whole, and the difference of their weights taken apart by torch."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.weights import WeightEvidence


def sources(base: Path, tuned: Path) -> tuple[ModelSource, ModelSource]:
    ours = resolve_model(str(base), base)
    return ours, resolve_model(str(tuned), tuned, ours)


def merged(base: ModelSource, adapter: ModelSource) -> dict[str, Tensor]:
    """The weights after PEFT's own merge, by the base's names, float32."""
    model: Any = load_model(adapter, torch.float32, torch.device("cpu"))
    whole = model.merge_and_unload()
    held = set(load_file(base.folder / "model.safetensors"))
    return {name: value.detach().clone() for name, value in whole.state_dict().items() if name in held}


def rows_by_name(evidence: WeightEvidence) -> dict[str, dict[str, Any]]:
    return {row["tensor"]: {**row, "index": i} for i, row in enumerate(evidence.table.to_pylist())}


def check_row(evidence: WeightEvidence, row: dict[str, Any], base: Tensor, tuned: Tensor) -> None:
    """Assert that one row of the table says what the dense matrices say, in float64."""
    w, change = base.double(), tuned.double() - base.double()
    square = float(change.square().sum())
    close: dict[str, Any] = {"rtol": 2e-5, "atol": 1e-7}

    def same(name: str, expected: float) -> None:
        torch.testing.assert_close(row[name], expected, **close, msg=lambda m: f"{row['tensor']} {name}: {m}")

    same("base_norm", float(w.norm()))
    same("change_norm", square**0.5)
    if bool(w.any()):
        same("relative_change", square**0.5 / float(w.norm()))
    same("max_change", float(change.abs().max()))
    if change.ndim < 2 or square == 0:
        assert row["stable_rank"] != row["stable_rank"]
        return
    u, s, vh = torch.linalg.svd(change, full_matrices=False)
    same("max_energy_share", float(change.abs().max()) ** 2 / square)
    same("stable_rank", square / float(s[0]) ** 2)
    same("effective_rank", square**2 / float(s.pow(4).sum()))
    for count in (1, 4, 16):
        same(f"top{count}_energy", float(s[:count].square().sum()) / square)
    values = torch.from_numpy(evidence.stats["singular_values"][row["index"]])
    size = min(len(s), 16)
    # A merge in float32 rounds by the size of the base, not by that of the change.
    rounding = torch.finfo(torch.float32).eps * float(torch.linalg.matrix_norm(w, 2))
    torch.testing.assert_close(values[:size], s[:16], rtol=2e-5, atol=2e-6 * float(s[0]) + rounding)
    left, right = (torch.from_numpy(side).double() for side in evidence.directions(row["index"]))
    for k in range(min(4, len(left))):
        if s[k] > 1e-3 * s[0]:
            # The product of the two is unique where their signs are not.
            torch.testing.assert_close(
                torch.outer(left[k], right[k]), torch.outer(u[:, k], vh[k]), rtol=0, atol=2e-4
            )
