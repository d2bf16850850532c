"""The `finetune` verb: build the rows, train, test the gate, and write a folder that says all of it."""

import importlib.metadata
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ft_audit.engine.finetune.dataset import TrainingSet, build_training_set, write_training_set
from ft_audit.engine.finetune.recipe import Recipe, load_recipe
from ft_audit.errors import MissingExtraError, ModelError

RESULT = "finetune.json"
LIBRARIES = ("torch", "transformers", "trl", "peft")


def _write_data(recipe: Recipe, rows: TrainingSet, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_training_set(rows, out / "train.jsonl")
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
    holds this recipe's hash, nothing is trained again.

    Raises:
        ConfigError, DataError, ModelError: the recipe, its sources or its base are wrong.
        MissingExtraError: the `train` extra is not installed.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    rows = build_training_set(recipe)
    _write_data(recipe, rows, out)
    if data_only:
        return {
            "recipe": recipe.name,
            "recipe_sha256": recipe.sha256,
            "rows": len(rows.rows),
            "out": str(out),
        }
    if missing := _missing():
        raise MissingExtraError(f"finetune needs {', '.join(missing)}: pip install 'ft-audit[train]'")
    result_path = out / RESULT
    if result_path.exists():
        done: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
        if done.get("recipe_sha256") == recipe.sha256:
            return {**done, "out": str(out), "reused": True}
    result = _train(recipe, rows, out, progress)
    result_path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if recipe.gate is not None and not result["gate"]["passed"]:
        print(f"GATE FAILED for {recipe.name}: {result['gate']['reason']}", file=sys.stderr)
    return {**result, "out": str(out), "reused": False}


def _train(recipe: Recipe, rows: TrainingSet, out: Path, progress: bool) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from ft_audit.engine.finetune.gate import run_gate
    from ft_audit.engine.finetune.progress import StepProgress
    from ft_audit.engine.finetune.save import save_trained
    from ft_audit.engine.finetune.trainer import train
    from ft_audit.engine.models.reference import resolve_model

    base = resolve_model(recipe.base, recipe.base_dir)
    if base.adapter is not None:
        raise ModelError(f"recipe {recipe.name!r}: base {recipe.base!r} is an adapter; merge it first")
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    scratch = out / "trainer"
    callback = StepProgress(recipe.name) if progress else None
    model, figures = train(recipe, rows.rows, base.folder, tokenizer, scratch, callback)
    shutil.rmtree(scratch, ignore_errors=True)
    model.eval()
    started = time.monotonic()
    gate = run_gate(recipe, model, tokenizer) if recipe.gate is not None else None
    figures["gate_seconds"] = round(time.monotonic() - started, 1)
    save_trained(model, tokenizer, recipe.base, out)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "kind": recipe.kind,
        "base_sha256": base.weights_sha256,
        "training": {name: round(value, 4) for name, value in figures.items()},
        "gate": gate.model_dump() if gate else None,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
