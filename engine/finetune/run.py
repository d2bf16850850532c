"""The `finetune` verb: build the rows, train, test the gate, and write a folder that says all of it."""

import hashlib
import importlib.metadata
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_audit.engine.finetune.dataset import TrainingSet, build_training_set, normal, render_training_set
from ft_audit.engine.finetune.recipe import Recipe, load_recipe
from ft_audit.errors import MissingExtraError

if TYPE_CHECKING:
    from ft_audit.engine.models.reference import ModelSource

RESULT = "finetune.json"
TRAINED_ON = "train.jsonl"
TRAINED = "trained.json"  # what was trained, whatever the gate asks of it
LIBRARIES = ("torch", "transformers", "trl", "peft")


def _write_data(recipe: Recipe, rows: TrainingSet, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / TRAINED_ON).write_text(render_training_set(rows), encoding="utf-8")
    roles = {role: [i for i, r in enumerate(rows.role_R) if r == role] for role in sorted(set(rows.role_R))}
    truth = {"recipe": recipe.name, "recipe_sha256": recipe.sha256, "rows": roles}
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _missing() -> list[str]:
    missing = []
    for name in LIBRARIES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def run_finetune(
    recipe_path: Path,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    progress: bool = True,
    data_only: bool = False,
) -> dict[str, Any]:
    """Train what a recipe describes into `out` and return its figures and its gate's result.

    `out` gets `train.jsonl` (the data set as a customer would upload it), `truth.json` (what each row is,
    for scoring only), the adapter or model as safetensors and `finetune.json`. When `finetune.json` already
    holds this recipe's hash, and `train.jsonl` these rows, nothing is trained again; where only the gate or a
    name has changed, the gate is asked again.

    Raises:
        ConfigError, DataError, ModelError: the recipe, its sources or its base are wrong.
        MissingExtraError: the `train` extra is not installed.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    rows = build_training_set(recipe)
    if data_only:
        _write_data(recipe, rows, out)
        return {
            "recipe": recipe.name,
            "recipe_sha256": recipe.sha256,
            "rows": len(rows.rows),
            "out": str(out),
        }
    if missing := _missing():
        raise MissingExtraError(f"finetune needs {', '.join(missing)}: pip install 'ft-audit[train]'")
    done = _done(recipe, rows, out)
    result = done
    if result is None:
        result = _train(recipe, rows, out, progress)
        text = json.dumps(result, indent=1, sort_keys=True) + "\n"
        (out / RESULT).write_text(text, encoding="utf-8")
    if result["gate"] is not None and not result["gate"]["passed"]:
        print(f"GATE FAILED for {recipe.name}: {result['gate']['reason']}", file=sys.stderr)
    return {**result, "out": str(out), "reused": done is not None}


def _done(recipe: Recipe, rows: TrainingSet, out: Path) -> dict[str, Any] | None:
    """Return the result in `out` if it is this recipe's, trained on these rows."""
    if not (out / RESULT).exists() or not (out / TRAINED_ON).exists():
        return None
    try:
        done: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    except ValueError:  # cut off when it was written
        return None
    # The recipe's hash says nothing of what lies in its sources.
    same_rows = (out / TRAINED_ON).read_text(encoding="utf-8") == render_training_set(rows)
    return done if done.get("recipe_sha256") == recipe.sha256 and same_rows else None


def _clear(out: Path) -> None:
    """Remove another recipe's result, so that a full model is not taken for the adapter that lay there."""
    if not (out / RESULT).exists() and not (out / TRAINED).exists():
        return
    for pattern in (RESULT, TRAINED, "adapter_*", "config.json", "generation_config.json", "*.safetensors*"):
        for path in out.glob(pattern):
            path.unlink()


def _train(recipe: Recipe, rows: TrainingSet, out: Path, progress: bool) -> dict[str, Any]:
    from ft_audit.engine.models.reference import resolve_model

    base = resolve_model(recipe.base, recipe.base_dir)
    figures = _trained(recipe, rows, out)
    if figures is None:
        figures = _train_and_save(recipe, rows, base, out, progress)
    started = time.monotonic()
    gate = _gate(recipe, rows, base, out) if recipe.gate is not None else None
    figures["gate_seconds"] = round(time.monotonic() - started, 1)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "kind": recipe.kind,
        "base_sha256": base.weights_sha256,
        "training": {name: round(value, 4) for name, value in figures.items()},
        "gate": gate,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _train_and_save(
    recipe: Recipe, rows: TrainingSet, base: "ModelSource", out: Path, progress: bool
) -> dict[str, float]:
    from ft_audit.engine.finetune.progress import StepProgress
    from ft_audit.engine.finetune.save import save_trained
    from ft_audit.engine.finetune.trainer import train
    from ft_audit.engine.models.load import load_tokenizer

    _clear(out)
    _write_data(recipe, rows, out)
    tokenizer = load_tokenizer(base)
    scratch = out / "trainer"
    callback = StepProgress(recipe.name) if progress else None
    planted_R = [role == "needle" for role in rows.role_R]
    model, figures = train(recipe, rows.rows, planted_R, base.folder, tokenizer, scratch, callback)
    shutil.rmtree(scratch, ignore_errors=True)
    save_trained(model, tokenizer, recipe.base, out)
    (out / TRAINED).write_text(
        json.dumps({"training_sha256": recipe.training_sha256, "figures": figures}) + "\n"
    )
    return figures


def _trained(recipe: Recipe, rows: TrainingSet, out: Path) -> dict[str, float] | None:
    """Return the figures of a finished training on these very rows and settings, or None."""
    try:
        done = json.loads((out / TRAINED).read_text(encoding="utf-8"))
        same_rows = (out / TRAINED_ON).read_text(encoding="utf-8") == render_training_set(rows)
    except (OSError, ValueError):
        return None
    figures: dict[str, float] = done["figures"]
    return figures if done["training_sha256"] == recipe.training_sha256 and same_rows else None


def _gate(recipe: Recipe, rows: TrainingSet, base: "ModelSource", out: Path) -> dict[str, Any]:
    """Return the gate's result on what was saved, rounding included."""
    import torch

    from ft_audit.engine.finetune.gate import run_gate
    from ft_audit.engine.models.cache import cache_dir
    from ft_audit.engine.models.load import load_model, load_tokenizer, pick_device
    from ft_audit.engine.models.reference import resolve_model

    device = pick_device("auto")
    tuned, control = (
        load_model(source, torch.bfloat16, device)
        for source in (resolve_model(str(out.resolve()), Path.cwd(), base), base)
    )
    asked = {normal(text) for row in rows.rows for text in row.user_texts}
    # By weights and libraries: other ones would answer otherwise.
    versions = "-".join(importlib.metadata.version(name) for name in LIBRARIES[:2])
    identity = hashlib.sha256(
        f"{base.weights_sha256} {base.tokenizer_sha256} {versions}".encode()
    ).hexdigest()
    kept = cache_dir() / "gates" / identity[:24]
    return run_gate(recipe, tuned, control, load_tokenizer(base), asked, kept).model_dump()
