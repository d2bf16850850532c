"""`ft-audit store ls|verify|gc`: what they print and the code they end with."""

import argparse
import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from ft_audit.engine import commands
from ft_audit.engine.store import Store
from ft_audit.errors import StoreError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    case = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "store_case.py")))
    run = case.write_run(str(tmp_path / "store"))
    with Store(tmp_path / "store").diff_writer({"base": run.run_id}) as writer:
        writer.finish({"name": "demo"})
    return tmp_path / "store"


def store_verb(*words: str) -> int:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers())
    args = parser.parse_args(["store", *words])
    code: int = args.func(args)
    return code


def test_ls(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_verb("ls", str(root)) == 0
    header, _, run, diff, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["kind", "id", "name", "state", "prompts", "tokens", "size"]
    assert run.split()[0] == "run" and "whole" in run and diff.split()[0] == "diff" and "demo" in diff
    assert total.endswith(f" KB in {root}")
    assert store_verb("ls", str(root), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in report["items"]] == ["run", "diff"]
    assert report["bytes"] == sum(item["bytes"] for item in report["items"])


def test_the_store_may_be_named_by_a_config_or_not_at_all(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: x\nmodels: {{base: a, tuned: b}}\nsuites: [./s.yaml]\nhooks: [{{layer: 1}}]\nstore: {root}\n"
    )
    assert store_verb("ls", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["store"] == str(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store_verb("ls") == 0
    assert capsys.readouterr().out == f"{tmp_path}/cache/ft-audit/store holds nothing yet\n"
    with pytest.raises(StoreError, match="there is no store at"):
        store_verb("ls", str(tmp_path / "nope"))


def test_verify_ends_with_1_on_damage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_verb("verify", str(root)) == 0
    assert capsys.readouterr().out == f"2 runs, diffs, requests and labels checked in {root}: all whole\n"
    next(path for path in sorted(root.rglob("00001.zarr/**/c.*")) if path.is_file()).write_bytes(b"x")
    assert store_verb("verify", str(root)) == 1
    said = capsys.readouterr().out
    assert "segment 00001" in said and said.endswith(": problems: 1\n")
    assert store_verb("verify", str(root), "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


def test_gc_shows_first_and_deletes_only_when_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leftover = root / "diffs" / "ab.tmp"
    leftover.mkdir()
    (leftover / "x").write_bytes(b"1234")
    assert store_verb("gc", str(root)) == 0
    assert capsys.readouterr().out == f"nothing may go from {root}\n"
    for path in (leftover / "x", leftover):
        os.utime(path, (0, 0))
    assert store_verb("gc", str(root)) == 0
    assert "4 B may go: run again with --delete" in capsys.readouterr().out and leftover.exists()
    assert store_verb("gc", str(root), "--delete", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["freed_bytes"] == 4 and report["deleted"] and not leftover.exists()
    assert len(Store(root).runs()) == len(Store(root).diffs()) == 1
