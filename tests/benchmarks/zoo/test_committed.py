"""The committed population: its evaluation says again what the committed results say."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_audit.benchmarks.zoo.evaluate import evaluate
from ft_audit.benchmarks.zoo.members import load_units
from ft_audit.benchmarks.zoo.population import load_zoo, members

ROOT = Path(__file__).parents[3]
SUMMARIES = ROOT / "benchmarks" / "results" / "zoo" / "smollm2-135m"
RESULT = ROOT / "benchmarks" / "results" / "detection.json"
COST = RESULT.with_name("audit-cpu.json")
ZOO = ROOT / "configs" / "zoo" / "smollm2-135m.yaml"
LARGEST_SUMMARY = 300_000


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{place}")
    else:
        yield path, value


def test_the_evaluation_runs_again_from_what_is_committed() -> None:
    again = dict(leaves(json.loads(json.dumps(evaluate(SUMMARIES, COST if COST.exists() else None)))))
    committed = dict(leaves(json.loads(RESULT.read_text(encoding="utf-8"))))
    assert again.keys() == committed.keys()
    for path, value in committed.items():
        if isinstance(value, float):
            # Another machine's arithmetic may order two scores that are all but equal otherwise.
            assert again[path] == pytest.approx(value, abs=0.02) or math.isnan(value), path
        else:
            assert again[path] == value, path


def test_every_summary_is_of_a_member_and_small() -> None:
    recipes = {member.name: member.recipe.sha256 for member in members(load_zoo(ZOO))}
    for unit in load_units(SUMMARIES):
        assert unit.origin.recipe_sha256 == recipes[unit.name], unit.name
        assert (SUMMARIES / f"{unit.name}.json").stat().st_size < LARGEST_SUMMARY
