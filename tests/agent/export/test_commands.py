"""`export` and `index` from the command line, and the workflow that the README offers."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from ft_audit.cli import main, parse

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture
def audited(make_case: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    case = make_case()
    main(["audit", case.config_file])
    capsys.readouterr()
    return case


def verdict_file(case: Any) -> Path:
    return case.folder / "store" / "audits" / case.verdict.audit_id / "verdict.json"


def test_export_prints_or_writes(audited: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = verdict_file(audited)
    assert main(["export", str(file), "--format", "json"]) == 0
    assert capsys.readouterr().out == file.read_text()
    keys = {"sarif": "runs", "inspect": "samples", "json": "findings"}
    for kind, key in keys.items():
        out = tmp_path / kind
        words = ["export", audited.config_file, "--format", kind, "--out", str(out), "--json"]
        assert main(words) == 0 and key in json.loads(out.read_text())
        said = json.loads(capsys.readouterr().out)
        assert said == {"export": str(out), "format": kind, "verdict": str(file)}


def test_index_lists_by_risk_escapes_and_names_the_damaged(
    audited: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = verdict_file(audited)
    hostile = json.loads(file.read_text())
    hostile.update(name="<script>alert(1)</script>", headline="<img src=x>\u202e", risk=9.9)
    other = file.parents[1] / "hostile"
    other.mkdir()
    (other / "verdict.json").write_text(json.dumps(hostile))
    (file.parents[1] / "cut").mkdir()
    (file.parents[1] / "bad").mkdir()
    (file.parents[1] / "bad" / "verdict.json").write_text("{")
    out = audited.folder / "pages" / "index.html"
    out.parent.mkdir()
    assert main(["index", str(audited.folder), "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    said, page = json.loads(captured.out), out.read_text()
    assert said["verdicts"] == 2 and len(said["unread"]) == 2 and captured.err.count("not read") == 2
    assert "<script" not in page and "<img" not in page and "\u202e" not in page
    assert page.index("&lt;script&gt;") < page.index(">needle<")
    (link,) = re.findall(r'<a href="([^"]+)"', page)
    assert (out.parent / link).resolve() == file.with_name("report.html") and not link.startswith("/")
    assert "bad/verdict.json" in page and "cut/verdict.json" in page


def test_an_index_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for root, said in ((tmp_path, "no verdict.json under"), (tmp_path / "gone", "no such store")):
        assert main(["index", str(root), "--out", str(tmp_path / "index.html")]) == 1
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_workflow_of_the_readme_calls_verbs_that_exist() -> None:
    section = README.read_text(encoding="utf-8").partition("### In a CI gate\n")[2]
    block = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert block is not None
    (job,) = yaml.safe_load(block[1])["jobs"].values()
    lines = [line.strip() for step in job["steps"] for line in step.get("run", "").splitlines()]
    words = [shlex.split(line.partition("||")[0]) for line in lines if line.startswith("ft-audit ")]
    parsed = [parse(one[1:]) for one in words]
    assert [one[1] for one in words] == ["precompute", "audit", "export", "index"]
    assert all(callable(args.func) for args in parsed)
    assert any("upload-sarif" in step.get("uses", "") for step in job["steps"])
