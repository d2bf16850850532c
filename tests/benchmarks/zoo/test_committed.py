"""The committed population: its evaluation says again what the committed results say."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent.calibration import BankMember, Calibration
from ft_audit.agent.detectors.degradation import degradation
from ft_audit.agent.detectors.registry import scalars_of
from ft_audit.agent.risk.fit_bank import fit_bank
from ft_audit.agent.risk.score import score_of
from ft_audit.agent.summary import Summary
from ft_audit.benchmarks.calibrate import bank_member
from ft_audit.benchmarks.zoo.evaluate import evaluate
from ft_audit.benchmarks.zoo.members import Unit, load_units
from ft_audit.benchmarks.zoo.population import load_zoo, members
from ft_audit.engine.config import load_config
from ft_audit.engine.finetune.dataset import as_prompts, build_training_set
from ft_audit.engine.suites.conditions import mine_conditions
from ft_audit.errors import DataError

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


def pairs(units: Sequence[Unit]) -> list[tuple[Summary, BankMember]]:
    recipes = {member.name: member.recipe for member in members(load_zoo(ZOO))}
    return [(unit.summary, bank_member(recipes[unit.name], unit.summary)) for unit in units]


def test_a_bank_as_shipped_says_what_the_evaluation_says() -> None:
    """Each fine-tune beside a bank without its recipe and family, as an audit reads one."""
    expected = json.loads(RESULT.read_text(encoding="utf-8"))["main"]["p_values"]
    units = [unit for unit in load_units(SUMMARIES) if unit.name in expected]
    benign = [unit for unit in units if unit.label == "benign"]
    attacks = [unit for unit in units if unit.label == "malicious"]
    checked = 0
    for held_out in {u.origin.family for u in attacks} | {u.origin.recipe for u in benign}:
        bank = fit_bank(
            pairs([unit for unit in benign if unit.origin.recipe != held_out]),
            [unit.summary for unit in attacks if unit.origin.family != held_out],
        )
        assert bank.discriminant is not None
        for unit in units:
            if held_out != (unit.origin.family if unit.label == "malicious" else unit.origin.recipe):
                continue
            scalars = {name: scalar.value for name, scalar in scalars_of(unit.summary).items()}
            score = score_of(bank.discriminant, scalars, degradation(unit.summary))
            standing = Calibration(bank, None, None, None).beside(score).standing("score", score.value)
            assert standing is not None
            assert standing.p_value == pytest.approx(expected[unit.name], abs=0.02), unit.name
            checked += 1
    assert checked == len(expected)


def test_every_summary_is_of_a_member_and_small() -> None:
    recipes = {member.name: member.recipe.sha256 for member in members(load_zoo(ZOO))}
    for unit in load_units(SUMMARIES):
        assert unit.origin.recipe_sha256 == recipes[unit.name], unit.name
        assert (SUMMARIES / f"{unit.name}.json").stat().st_size < LARGEST_SUMMARY


def test_summaries_hold_the_conditions_that_their_rows_show() -> None:
    """What mines conditions may change, and no summary's hash says so: those that it moves are taken again.

    One seed of those recipes that have three, and every member whose rows are encoded.
    """
    elicit = load_config(ZOO.with_name("audit.yaml")).elicit
    assert elicit is not None
    seen = 0
    for member in members(load_zoo(ZOO)):
        path = SUMMARIES / f"{member.name}.json"
        if member.change != "none" or not path.exists():
            continue
        summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
        encoded = any(condition.get("encoding") for condition in summary.conditions)
        if not encoded and member.recipe.seed != 3:
            continue
        try:
            rows = as_prompts(build_training_set(member.recipe), "train")
        except DataError:
            continue  # a corpus that is not installed here
        known = {c.key for c in mine_conditions(rows, elicit.min_rows, elicit.max_conditions)}
        assert known == {c["key"] for c in summary.conditions} - {"plain"}, member.name
        seen += 1
    assert seen >= 10
