"""`ft-audit benchmark --config`: one audit from models to verdict, its suites given on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.engine.store import Store


def test_one_call_precomputes_and_judges(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "store", tmp_path / "results" / "one.json"
    path = world.write(store, elicit=None, generate=None, file="benchmark.yaml")
    arguments = ["--config", str(path), "--suite", "./probes.yaml", "--out", str(out), "--no-progress"]
    code = cli.main(["benchmark", *arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    # Without a bank nothing is claimed.
    assert code == found["exit_code"] == 3
    assert json.loads(out.read_text(encoding="utf-8")) == found
    diff = Store(str(store)).open_diff(found["precompute"]["diff_id"])
    assert {suite["name"] for suite in diff.manifest.summary["suites"]} >= {"probes", "train"}
    assert "chat" not in {suite["name"] for suite in diff.manifest.summary["suites"]}
    assert Path(found["paths"]["report"]).exists() and set(found["seconds"]) == {"precompute", "audit"}


def test_a_config_or_a_population_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--suite", "./chat.jsonl"]) == 1
    assert "--config" in capsys.readouterr().err
