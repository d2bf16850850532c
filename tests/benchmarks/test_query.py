"""The query benchmark at a size of a few segments: every figure there, and wrong answers refused."""

import argparse

import numpy as np
import pytest

from ft_audit.agent.tools.rooms import tools_of
from ft_audit.benchmarks import query
from ft_audit.benchmarks.harness import compare, load_asked
from ft_audit.benchmarks.storing.tool_times import COMPUTING
from ft_audit.engine.store import FeatureIndex

OPTIONS = {
    "tokens": 20_000,
    "features": 600,
    "l0": 12.0,
    "segment": 5000,
    "queries": 6,
    "cold": 2,
    "quick": False,
}


def test_every_asked_figure_is_measured(tmp_path):
    found = query.measure(argparse.Namespace(**OPTIONS, tools=True, scratch=tmp_path))
    figures = {figure.name: figure.value for figure in compare(found, load_asked("query"))}
    assert None not in figures.values()
    assert figures["features"] == 600
    assert figures["firings_both_models"] == pytest.approx(2 * 12 * 0.89 * 20_000, rel=0.15)
    for name in ("statistics/random/warm", "contexts/leading/cold", "contexts/densest/reopened"):
        assert 0 < figures[f"{name}_p50"] <= figures[f"{name}_p99"]
    reading = {one.name for one in tools_of("full").values() if not one.writes}
    p99 = {name: figures[f"tools/{name}_p99"] for name in reading}
    assert figures["tools/slowest_p99"] == max(v for name, v in p99.items() if name not in COMPUTING)
    assert not list(tmp_path.iterdir())


def test_statistics_that_are_not_the_stored_ones_are_refused(tmp_path, monkeypatch):
    real = FeatureIndex.statistics

    def off(self, group, feature):
        return {name: np.nextafter(value, np.inf) for name, value in real(self, group, feature).items()}

    monkeypatch.setattr(FeatureIndex, "statistics", off)
    with pytest.raises(AssertionError):
        query.measure(argparse.Namespace(**OPTIONS, tools=False, scratch=tmp_path))
