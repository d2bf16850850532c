"""The audit benchmark without its models: what is audited with what, and every asked figure there."""

import argparse
from typing import Any

import pytest

from ft_audit.benchmarks import audit
from ft_audit.benchmarks.harness import compare, load_asked
from ft_audit.engine.config import load_config, resolve_ref
from ft_audit.engine.suites.training_set import load_training_set


def test_both_candidates_share_base_store_and_a_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(ref: str, suites: Any, overrides: Any, *, progress: bool) -> tuple[dict[str, Any], int, str]:
        seen.append(load_config(ref, overrides))
        return {"seconds": {"precompute": 100.0 * len(seen), "audit": 1.0}}, 0, ""

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
