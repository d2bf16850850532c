"""The Inspect log of a verdict: its parts, and that Inspect itself reads it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent.assessment import Assessment
from ft_audit.agent.export.inspect_log import inspect_log, inspect_text
from ft_audit.agent.investigators.transcript import Transcript
from ft_audit.engine.store import Store

CALL = {"id": "c0", "type": "function", "function": {"name": "health", "arguments": '{"limit": 3}'}}
BROKEN = {"id": "c1", "type": "function", "function": {"name": "health", "arguments": "{nonsense"}}
MESSAGES = [
    {"role": "system", "content": "You audit."},
    {"role": "user", "content": "Begin."},
    {"role": "assistant", "content": None, "tool_calls": [CALL, BROKEN]},
    {"role": "tool", "tool_call_id": "c0", "content": "{}"},
]
USAGE = {
    "model": "tiny",
    "requests": 1,
    "tool_calls": 1,
    "tokens_in": 100,
    "tokens_out": 10,
    "seconds": 1.0,
    "money": 0.5,
}


def asked(verdict: Any, folder: Path) -> tuple[Any, list[Transcript]]:
    told = {"status": "gave up", "conclusion": None, "citations": [], "profile": "full", "usage": USAGE}
    entries = [{"message": message} for message in MESSAGES]
    transcript = Transcript(Store(folder), verdict.audit_id, entries=entries)
    return verdict.model_copy(update={"assessment": Assessment.model_validate(told)}), [transcript]


def test_the_log_has_one_sample_with_scores_and_transcript(needle: Any, tmp_path: Path) -> None:
    log = inspect_log(*asked(needle.verdict, tmp_path), 0.0)
    (sample,) = log["samples"]
    assert log["eval"]["created"] == "1970-01-01T00:00:00+00:00"
    assert {name: score["value"] for name, score in sample["scores"].items()} == {
        "risk": needle.verdict.risk,
        "p_value": needle.verdict.p_value,
    }
    assert [message["role"] for message in sample["messages"]] == ["system", "user", "assistant", "tool"]
    good, broken = sample["messages"][2]["tool_calls"]
    assert good["arguments"] == {"limit": 3} and broken["arguments"] == {"raw": "{nonsense"}
    assert sample["model_usage"]["openai-api/tiny"]["total_tokens"] == 110
    assert sample["metadata"]["verdict"]["audit_id"] == needle.verdict.audit_id


def test_a_risk_that_is_not_stated_has_no_score(make_case: Any) -> None:
    verdict = make_case(bank=None).verdict
    log = inspect_log(verdict, [], 0.0)
    assert verdict.risk is None and log["samples"][0]["scores"] == {} and log["results"]["scores"] == []


def test_inspect_reads_it(needle: Any, tmp_path: Path) -> None:
    reader = pytest.importorskip("inspect_ai.log")
    path = tmp_path / "log.json"
    path.write_text(inspect_text(*asked(needle.verdict, tmp_path), 0.0))
    log = reader.read_eval_log(str(path))
    assert log.status == "success" and log.samples[0].scores["risk"].value == needle.verdict.risk
    assert log.samples[0].messages[2].tool_calls[0].arguments == json.loads('{"limit": 3}')
    assert log.stats.model_usage["openai-api/tiny"].input_tokens == 100
