"""A verdict as an eval log of Inspect (version 2 of its JSON): one sample, its scores, the transcripts."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ft_audit.agent.audit import verdict_text
from ft_audit.agent.investigators.transcript import Transcript
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Verdict

LOG_VERSION = 2
TASK, SCORER = "ft-audit", "ft_audit"
STATISTICS = "none/statistics"


def inspect_log(verdict: Verdict, transcripts: Sequence[Transcript], when: float) -> dict[str, Any]:
    """The eval log; `when` is the audit's time in seconds since 1970, `transcripts` those of its agents."""
    created = datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
    scores = _scores(verdict)
    usage = _usage(verdict)
    metrics = {name: _metric(score["value"]) for name, score in scores.items()}
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": _spec(verdict, created),
        "plan": {"name": "plan", "steps": [{"solver": verdict.investigator, "params": {}}], "config": {}},
        "results": {
            "total_samples": 1,
            "completed_samples": 1,
            "scores": [
                {"name": name, "scorer": SCORER, "params": {}, "metrics": metric}
                for name, metric in metrics.items()
            ],
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": usage},
        "samples": [_sample(verdict, transcripts, scores, usage)],
    }


def inspect_text(verdict: Verdict, transcripts: Sequence[Transcript], when: float) -> str:
    """The log as JSON in ASCII, so that no quoted character can act on a terminal that shows it."""
    return json.dumps(inspect_log(verdict, transcripts, when), indent=2, allow_nan=False) + "\n"


def _spec(verdict: Verdict, created: str) -> dict[str, Any]:
    return {
        "eval_id": _id(verdict, "eval"),
        "run_id": _id(verdict, "run"),
        "task_id": _id(verdict, "task"),
        "created": created,
        "task": TASK,
        "task_version": verdict.schema_version,
        "dataset": {"name": reveal(verdict.name, 200), "samples": 1, "sample_ids": [verdict.audit_id]},
        "model": _model(verdict),
        "config": {},
        "packages": {"ft-audit": verdict.ft_audit_version},
        "metadata": {"audit_id": verdict.audit_id, "diff": verdict.diff},
    }


def _sample(
    verdict: Verdict, transcripts: Sequence[Transcript], scores: dict[str, Any], usage: dict[str, Any]
) -> dict[str, Any]:
    asked = f"What did the fine-tune {reveal(verdict.tuned.name, 200)} change, and how alarming is that?"
    messages = [_message(message) for one in transcripts for message in one.messages]
    output = {
        "model": _model(verdict),
        "choices": [
            {"message": {"role": "assistant", "content": verdict.headline}, "stop_reason": "stop"},
        ],
    }
    told = json.loads(verdict_text(verdict))
    return {
        "id": verdict.audit_id,
        "epoch": 1,
        "input": asked,
        "target": "",
        "messages": messages,
        "output": output,
        "scores": scores,
        "metadata": {"verdict": told},
        "model_usage": usage,
    }


def _scores(verdict: Verdict) -> dict[str, Any]:
    """What can be scored: a risk that is not stated has no score, rather than one of zero."""
    conclusion = verdict.assessment.conclusion if verdict.assessment else None
    about = {"status": verdict.status, "threshold": verdict.threshold, "no_finding": verdict.no_finding}
    values = {
        "risk": verdict.risk,
        "p_value": verdict.p_value,
        "agent_risk": None if conclusion is None else conclusion.risk,
        "agent_confidence": None if conclusion is None else conclusion.confidence,
    }
    return {
        name: {"value": value, "explanation": verdict.headline, "metadata": about}
        for name, value in values.items()
        if value is not None
    }


def _metric(value: float) -> dict[str, Any]:
    return {"mean": {"name": "mean", "value": value, "params": {}}}


def _usage(verdict: Verdict) -> dict[str, Any]:
    if verdict.assessment is None:
        return {}
    took = verdict.assessment.usage
    usage: dict[str, Any] = {
        "input_tokens": took.tokens_in,
        "output_tokens": took.tokens_out,
        "total_tokens": took.tokens_in + took.tokens_out,
    }
    return {_model(verdict): usage if took.money is None else {**usage, "total_cost": took.money}}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message of chat completions as Inspect has it: calls by name, arguments parsed."""
    said: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    if message["role"] == "tool":
        return {**said, "tool_call_id": message.get("tool_call_id")}
    calls = message.get("tool_calls")
    return {**said, "tool_calls": [_call(call) for call in calls]} if calls else said


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    given = function.get("arguments") or "{}"
    told: dict[str, Any] = {"id": call["id"], "function": function["name"], "type": "function"}
    try:
        arguments = json.loads(given)
    except ValueError as error:
        # What the model wrote is kept as it was.
        return {**told, "arguments": {"raw": given}, "parse_error": str(error)}
    return {**told, "arguments": arguments if isinstance(arguments, dict) else {"raw": given}}


def _model(verdict: Verdict) -> str:
    return STATISTICS if verdict.assessment is None else f"openai-api/{verdict.assessment.usage.model}"


def _id(verdict: Verdict, kind: str) -> str:
    return hashlib.sha256(f"{kind}:{verdict.audit_id}".encode()).hexdigest()[:22]
