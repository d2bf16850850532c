"""Asking again for what a verdict cites: it holds, and what was changed does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.agent.assessment import Assessment, Usage
from ft_audit.agent.audit import run_audit
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.agent.verdict import Verdict
from ft_audit.agent.verify import auditor_of, verify

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def written(asked: Any) -> Path:
    return Path(run_audit(asked.config).verdict_file)


def with_citation(asked: Any, verdict: Verdict) -> Verdict:
    auditor = Auditor(asked.config, asked.evidence, asked.calibration, tools_of("greybox"), "greybox")
    citations = [auditor.call(name, {}).citation for name in ("health", "elicited_behaviours")]
    usage = Usage(model="m", requests=1, tool_calls=2, tokens_in=1, tokens_out=1, seconds=0.0, money=None)
    assessment = Assessment(
        status="concluded", conclusion=None, citations=citations, profile="greybox", usage=usage
    )
    return verdict.model_copy(update={"assessment": assessment})


def test_an_honest_verdict_holds_reading_by_reading(asked: Any, written: Path) -> None:
    verdict = with_citation(asked, Verdict.model_validate_json(written.read_bytes()))
    checks = verify(verdict, auditor_of(verdict))
    cited = sum(len(finding.evidence) for finding in verdict.findings)
    assert len(checks) == len(verdict.figures) + cited + 2 > 20
    assert [check for check in checks if not check.holds] == []


def changed_figure(verdict: dict[str, Any]) -> None:
    verdict["figures"][0]["evidence"]["value"] += 1e-9


def changed_finding(verdict: dict[str, Any]) -> None:
    verdict["findings"][1]["evidence"][0]["value"] = 3.06


def changed_question(verdict: dict[str, Any]) -> None:
    verdict["findings"][1]["evidence"][0]["select"]["column"] = "no_such_column"


@pytest.mark.parametrize("change", [changed_figure, changed_finding, changed_question])
def test_what_was_changed_is_named(written: Path, change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(written.read_bytes())
    change(fields)
    other = written.with_name("other.json")
    other.write_text(json.dumps(fields), encoding="utf-8")
    assert cli.main(["verify", str(other), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["failed"]) == 1 < found["checked"]
    assert cli.main(["verify", str(other)]) == 1
    said = capsys.readouterr().out
    assert "differs  " in said and f"{found['checked'] - 1} of {found['checked']} readings" in said


@pytest.mark.parametrize(
    "changed", [{"sha256": "0" * 64}, {"arguments": {"limit": 3, "offset": 0}}, {"tool": "no_such_tool"}]
)
def test_a_citation_that_gives_another_answer_is_named(
    asked: Any, written: Path, changed: dict[str, Any]
) -> None:
    verdict = with_citation(asked, Verdict.model_validate_json(written.read_bytes()))
    assert verdict.assessment is not None
    verdict.assessment.citations[1] = verdict.assessment.citations[1].model_copy(update=changed)
    failed = [check for check in verify(verdict, auditor_of(verdict)) if not check.holds]
    assert [check.what.partition(":")[0] for check in failed] == [verdict.assessment.citations[1].evidence_id]


def test_an_honest_verdict_verifies_from_the_command_line(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(written)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("readings give what the verdict says")


def test_another_bank_is_refused(make_case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = make_case()
    file = run_audit(case.config).verdict_file
    bank = case.folder / "bank.json"
    bank.write_text(bank.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert cli.main(["verify", file]) == 1
    assert "has changed since the verdict was written" in capsys.readouterr().err
