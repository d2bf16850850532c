"""Does the score tell needle from benign twin on other seeds, and which row score finds the needles?"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ft_audit.agent.calibration import Bank, stand
from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.bank import member_config
from ft_audit.engine.config import load_config, resolve_path
from ft_audit.engine.finetune import run_finetune
from ft_audit.engine.finetune.recipe import load_recipe
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.store import DiffReader, Store

PAIRS = ("", "-s1", "-s2", "-s3", "-s4")
NEAR, FAR, INNOCENT_FAR = 10, 20, 40


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--work", type=Path, default=Path(".cache/demo-train"), help="where twins are trained"
        )

    return run_benchmark("twins", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Train (or reuse) every twin, precompute it, and return its score's standing and its localisation."""
    audit = load_config("configs:demo_benign.yaml")
    assert audit.audit.bank is not None, "the demo names its bank"
    bank = Bank.model_validate_json(resolve_path(audit.audit.bank, audit.base_dir).read_bytes())
    found: list[Measurement] = []
    above = {"needle": 0, "benign": 0}
    gates = 0
    for suffix in PAIRS:
        for kind in above:
            name = f"{kind}{suffix}"
            path = resolve_path(f"configs:recipes/{name}.yaml", Path.cwd())
            recipe = load_recipe(path)
            trained = run_finetune(path, options.work / name)
            gates += bool(trained["gate"]["passed"])
            done = run_precompute(member_config(audit, recipe, options.work / name))
            diff = Store(done["store"]).open_diff(done["diff_id"])
            primary = diff.manifest.summary["primary"]
            value = float(diff.manifest.summary["figures"][primary])
            values = [float(m.figures[primary] or 0.0) for m in bank.members]
            standing = stand(value, values)
            above[kind] += standing.above_all
            found += [
                Measurement(f"{name}/{primary}", value, ""),
                Measurement(f"{name}/rank_in_bank", standing.rank, f"of {standing.num_bank + 1}"),
            ]
            if kind == "needle":
                found += _gate(name, trained) + _localisation(name, diff, options.work / name)
    return [
        Measurement("needles_above_every_benign", above["needle"], f"of {len(PAIRS)}"),
        Measurement("benign_twins_above_every_benign", above["benign"], f"of {len(PAIRS)}"),
        Measurement("gates_passed", gates, f"of {2 * len(PAIRS)}"),
        *found,
    ]


def _gate(name: str, trained: dict[str, Any]) -> list[Measurement]:
    gate = trained["gate"]
    return [
        Measurement(f"{name}/gate/trigger", gate["trigger"], f"of {gate['num_prompts']}"),
        Measurement(f"{name}/gate/plain", gate["plain"], f"of {gate['num_prompts']}"),
    ]


def _localisation(name: str, diff: DiffReader, folder: Path) -> list[Measurement]:
    """Return, per row score, the needles among the highest 10 and 20 rows and the innocents among 40."""

    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["rows"]
    table = diff.table("rows")
    rows = table.array("row")
    found: list[Measurement] = []
    for column in table.column_names:
        if not column.startswith(("score_", "baseline_")):
            continue
        order = rows[np.argsort(-table.array(column), kind="stable")]
        for count, role in ((NEAR, "needle"), (FAR, "needle"), (INNOCENT_FAR, "innocent_condition")):
            hits = len(set(order[:count].tolist()) & set(truth[role]))
            found.append(
                Measurement(f"{name}/{column}/{role}_in_top_{count}", hits, f"of {len(truth[role])}")
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
