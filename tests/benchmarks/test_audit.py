"""The audit benchmark without its models: what is audited with what, and every asked figure there."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent.detectors.scalar import COSTS
from ft_audit.benchmarks import audit
from ft_audit.benchmarks.harness import compare, load_asked
from ft_audit.benchmarks.zoo.per_second import audit_seconds, per_second
from ft_audit.engine.config import load_config, resolve_ref
from ft_audit.engine.suites.training_set import load_training_set
from ft_audit.errors import DataError


def test_both_candidates_share_base_store_and_a_thousand_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def run(ref: str, suites: Any, overrides: Any, *, progress: bool) -> tuple[dict[str, Any], int, str]:
        seen.append(load_config(ref, overrides))
        parts = {"texts": 1.0, "forward": 40.0, "answers": 50.0, "weights": 2.0, "statistics": 7.0}
        done = {
            "seconds": {"precompute": 100.0 * len(seen), "audit": 1.0},
            "verdict": {"cost": {"seconds": parts}},
        }
        return done, 0, ""

    monkeypatch.setattr(audit, "audit_of_config", run)
    found = audit.measure(argparse.Namespace(data_set=audit.DATA_SET))
    figures = {figure.name: figure for figure in compare(found, load_asked("audit"))}
    assert (figures["first_seconds"].value, figures["cached_base_seconds"].value) == (101.0, 201.0)
    assert figures["cached_base_seconds"].holds is False
    first, second = seen
    assert (first.models.base, first.store) == (second.models.base, second.store)
    assert first.models.tuned != second.models.tuned
    for config in seen:
        dataset = load_training_set(config.dataset.path, config.base_dir)
        assert len(dataset.prompts) == 1000
        assert resolve_ref(config.models.tuned, config.base_dir).is_dir()
    report = tmp_path / "audit-cpu.json"
    report.write_text(json.dumps({"figures": [{"name": f.name, "value": f.value} for f in found]}))
    ways = {f"up to {cost}": {"auroc": {"value": 0.5}} for cost in COSTS}
    tiers = per_second(ways, audit_seconds(report))
    assert [(t["up_to"], t["seconds"]) for t in tiers] == [
        ("texts", 1.0), ("weights", 3.0), ("forward", 50.0), ("answers", 100.0)
    ]  # fmt: skip
    report.write_text(json.dumps({"figures": []}))
    with pytest.raises(DataError, match=r"not a report of ft_audit\.benchmarks\.audit"):
        audit_seconds(report)
