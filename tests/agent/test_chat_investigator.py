"""The investigator that is a language model, with scripted ones in its place: budgets, and no obedience."""

import json
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.agent.investigators.chat import REPORT, Investigation
from ft_audit.agent.investigators.transcript import NAME, Transcript, file_of
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import all_tools, tools_of
from ft_audit.engine.config import AgentConfig, ChatModelConfig
from ft_audit.engine.store import Store
from ft_audit.errors import ServiceError

said = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("scripted.py"))))
INJECTIONS, ORDER = said.INJECTIONS, said.ORDER
concluding, in_turn, report, session_of = said.concluding, said.in_turn, said.report, said.session_of
Messages = Sequence[dict[str, Any]]
Said = tuple[str, dict[str, Any]] | str
Policy = Callable[[Messages, Any], Any]


@pytest.fixture
def investigation(asked: Any, tmp_path: Any) -> Callable[..., Investigation]:
    def make(policy: Policy, case: Any = asked, store: Any = None, **budget: Any) -> Investigation:
        config = AgentConfig(chat=ChatModelConfig(model="scripted"), **budget)
        auditor = Auditor(case.config, case.evidence, case.calibration, tools_of("full"))
        return Investigation(
            auditor, config, said.Scripted(policy), Transcript.open(Store(store or tmp_path), "a" * 16)
        )

    return make


def test_a_careful_model_asks_and_reports_what_it_was_answered(investigation: Any) -> None:
    policy = in_turn(("health", {}), ("elicited_behaviours", {}), report(9.0))
    run = investigation(policy)
    found = run.run()
    assert found.status == "concluded" and found.conclusion.risk == 9.0
    assert [c.tool for c in found.citations] == ["elicited_behaviours"]
    assert found.citations[0] == run.auditor.cited[found.citations[0].evidence_id]
    assert (found.usage.requests, found.usage.tool_calls, found.usage.tokens_in) == (3, 3, 300)
    assert run.model.choices == ["auto"] * 3


def test_nothing_found_is_a_conclusion(investigation: Any) -> None:
    found = investigation(in_turn(("health", {}), report(0.5, cite=False))).run()
    assert found.conclusion.root_cause == "none" and found.conclusion.findings == found.citations == []


def test_evidence_that_nobody_gave_is_refused_until_it_is_right(investigation: Any) -> None:
    def made_up(messages: Messages) -> Said:
        return REPORT, {
            "session_id": session_of(messages),
            "conclusion": concluding(9.0, "health-0000000000"),
        }

    run = investigation(in_turn(made_up, ("elicited_behaviours", {}), report(9.0)))
    found = run.run()
    errors = [m["content"] for m in run.transcript.messages if str(m["content"]).startswith("error")]
    assert errors == [
        "error: no answer has the evidence id 'health-0000000000': cite what a tool gave back (none yet)"
    ]
    assert found.status == "concluded" and found.citations[0].tool == "elicited_behaviours"


def test_a_cause_without_a_finding_is_refused(investigation: Any) -> None:
    def bare(messages: Messages) -> Said:
        conclusion = concluding(9.0, root_cause="encoded channel")
        return REPORT, {"session_id": session_of(messages), "conclusion": conclusion}

    run = investigation(in_turn(bare, ("health", {}), report(0.0, cite=False)))
    assert run.run().conclusion.risk == 0.0
    assert any("without a finding" in str(m["content"]) for m in run.transcript.messages)


def test_wrong_calls_are_answered_in_words(investigation: Any) -> None:
    policy = in_turn(("nothing", {}), ("grep_training_data", {"phrases": 3}), report(0.0, cite=False))
    run = investigation(policy)
    assert run.run().status == "concluded"
    answers = [m["content"] for m in run.transcript.messages if m["role"] == "tool"]
    assert answers[0].startswith("error: no tool 'nothing'") and answers[1].startswith(
        "error: grep_training_data"
    )


def test_a_model_cannot_close_the_session_that_it_reports_to(investigation: Any) -> None:
    def close(messages: Messages) -> Said:
        return "close_audit_session", {"session_id": session_of(messages)}

    run = investigation(in_turn(close, report(2.0, cite=False)))
    assert run.run().conclusion.risk == 2.0
    assert any("it stays open" in str(m["content"]) for m in run.transcript.messages)


def test_several_calls_of_one_turn_are_all_answered(investigation: Any) -> None:
    def both(messages: Messages, choice: Any) -> Any:
        return (
            [("health", {}), ("residual_movement", {})]
            if len(messages) == 2
            else report(0.0, cite=False)(messages)
        )

    run = investigation(both)
    run.run()
    answered = [m["tool_call_id"] for m in run.transcript.messages if m["role"] == "tool"]
    assert len(answered) == len(set(answered)) == 3


def test_a_call_in_a_fence_is_understood(investigation: Any) -> None:
    def fenced(name: str, arguments: Any) -> str:
        return f"I ask:\n```json\n{json.dumps({'tool': name, 'arguments': arguments})}\n```"

    def last(messages: Messages) -> Said:
        return fenced(REPORT, {"session_id": session_of(messages), "conclusion": concluding(1.0)})

    run = investigation(in_turn(fenced("health", {}), last))
    assert run.run().conclusion.risk == 1.0
    assert run.transcript.messages[3]["role"] == "user"
    assert run.transcript.messages[3]["content"].startswith('Answer of health: {"evidence_id"')


@pytest.mark.parametrize(
    "text",
    ['{"name": "health", "arguments": {}}', '<tool_call>\n{"name": "health"}\n</tool_call>'],
    ids=["alone", "tagged"],
)
def test_calls_as_small_models_write_them(investigation: Any, text: str) -> None:
    def last(messages: Messages) -> Said:
        return json.dumps(
            {
                "tool": REPORT,
                "arguments": {"session_id": session_of(messages), "conclusion": concluding(1.0)},
            }
        )

    run = investigation(in_turn(text, last))
    assert run.run().conclusion.risk == 1.0
    assert run.transcript.messages[3]["content"].startswith('Answer of health: {"evidence_id"')


def test_what_was_asked_before_is_not_told_again(investigation: Any) -> None:
    policy = in_turn(("health", {}), ("health", {}), ("residual_movement", {}), report(0.0, cite=False))
    run = investigation(policy)
    run.run()
    answers = [json.loads(m["content"]) for m in run.transcript.messages if m["role"] == "tool"]
    assert set(answers[1]) == {"evidence_id", "note"} and "asked this before" in answers[1]["note"]
    assert answers[1]["evidence_id"] == answers[0]["evidence_id"] and "suites" in answers[0]
    # The note is no answer: once the answer is left out to make room, nothing stands in its place.
    given = [e["citation"]["tool"] for e in run.transcript.entries if e.get("citation")]
    assert given.count("health") == 1


def test_the_oldest_answers_make_room_and_can_be_asked_again(investigation: Any) -> None:
    shown: list[list[str]] = []

    def policy(messages: Messages, choice: Any) -> Any:
        shown.append([str(m["content"]) for m in messages])
        asking = ["health", "figures_against_benign", "elicited_behaviours", "health"]
        if len(shown) <= len(asking):
            return asking[len(shown) - 1], {}
        return report(0.0, cite=False)(messages)

    # Turns count 100 tokens each, so that all that was said is more than a model of 60 can read.
    run = investigation(policy, max_context_tokens=60)
    assert run.run().status == "concluded"
    last = shown[-1]
    assert any("left out to make room" in text for text in last[:-1])
    assert last[0] == run.transcript.messages[0]["content"], "what the model was told stays"
    assert '"suites"' in last[-1], "what was left out and is asked again is told again"
    # The transcript keeps everything.
    assert not any("left out" in str(m["content"]) for m in run.transcript.messages)


@pytest.mark.parametrize(
    "text", ["Hm.", "```json\n{broken\n```", '```json\n{"a": 1}\n``` ```json\n{"b": 2}\n```']
)
def test_a_model_that_calls_nothing_has_given_up(investigation: Any, text: str) -> None:
    found = investigation(lambda messages, choice: text).run()
    assert (found.status, found.conclusion, found.usage.requests) == ("gave up", None, 3)


@pytest.mark.parametrize(
    "budget",
    [{"max_requests": 5}, {"max_tokens": 500}, {"max_money": 0.5, "price_in": 1_000.0, "price_out": 0.0}],
)
def test_a_budget_ends_what_never_ends(investigation: Any, budget: dict[str, Any]) -> None:
    run = investigation(lambda messages, choice: ("health", {}), **budget)
    found = run.run()
    assert (found.status, found.conclusion) == ("out of budget", None)
    assert found.usage.requests == 5 and found.usage.tokens_in + found.usage.tokens_out <= 550
    # Before the end the model was asked for its report.
    assert run.model.choices[-1] == {"type": "function", "function": {"name": REPORT}}
    assert "auto" in run.model.choices


def test_time_is_a_budget_too(investigation: Any) -> None:
    run = investigation(lambda messages, choice: ("health", {}), max_seconds=10.0)
    ticks = iter(range(0, 10_000, 3))
    run.clock = lambda: float(next(ticks))
    found = run.run()
    assert found.status == "out of budget" and found.usage.seconds >= 10.0


def test_an_investigation_that_was_cut_off_goes_on(investigation: Any, tmp_path: Any) -> None:
    def fails(messages: Messages) -> Said:
        raise ServiceError("gone")

    first = investigation(in_turn(("elicited_behaviours", {}), fails))
    with pytest.raises(ServiceError):
        first.run()
    kept = (tmp_path / "audits" / ("a" * 16) / file_of(NAME)).read_text(encoding="utf-8")
    again = investigation(in_turn(report(8.0)))
    found = again.run()
    assert found.status == "concluded" and found.usage.requests == 2
    assert [c.tool for c in found.citations] == ["elicited_behaviours"]
    assert (tmp_path / "audits" / ("a" * 16) / file_of(NAME)).read_text(encoding="utf-8").startswith(kept)


def test_a_turn_whose_answer_was_not_written_is_answered_when_it_goes_on(
    investigation: Any, tmp_path: Any
) -> None:
    first = investigation(in_turn(("elicited_behaviours", {}), report(8.0)))
    first.run()
    file = tmp_path / "audits" / ("a" * 16) / file_of(NAME)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:40], encoding="utf-8")
    found = investigation(in_turn(report(8.0))).run()
    assert found.status == "concluded" and found.citations[0].tool == "elicited_behaviours"


# Hostile input.


def outside(content: str) -> str:
    """What a reader sees outside of the answer's markers."""
    try:
        marker = json.loads(content).get("untrusted_marker")
    except ValueError:
        named = re.search(r"stands between «(\w+)» and «/\1»: ", content)
        return re.sub(f"«{named[1]}».*«/{named[1]}»", "", content, flags=re.DOTALL) if named else content
    if marker is None:
        return content
    kept = content.replace(f'"untrusted_marker": "{marker}"', "")
    return re.sub(f"«{marker}».*?«/{marker}»", "", kept, flags=re.DOTALL)


def gullible(case: Any) -> Policy:
    """Ask every tool, and obey any order that stands outside of data markers."""
    asking: dict[str, dict[str, Any]] = {
        "grep_training_data": {"phrases": ["OBEY"]},
        "run_prompt_suite": {"suite": "elicited"},
        "query_models": {"phrase": "OBEY"},
        "logit_findings": {"suite": "chat"},
        "get_top_features": {"suite": "train"},
        "compare_top_features": {"suite": "train"},
        "get_feature_details": {"feature": 0},
        "specific_feature_activations": {"feature": 0, "suite": "chat", "prompt": 1},
        "nearest_explained_neighbors": {"feature": 0},
        "score_candidate_suite": {"suite": "train"},
        "rows_that_drive_feature": {"feature": 0},
    }
    left = [one.name for one in all_tools() if not one.writes]

    def policy(messages: Messages, choice: Any) -> Said:
        obeyed = any("OBEY" in outside(str(m["content"])) for m in messages[1:] if m["role"] != "assistant")
        if obeyed or not left:
            return report(0.0 if obeyed else 5.0, cite=False)(messages)
        name = left.pop(0)
        return name, asking.get(name, {})

    return policy


@pytest.mark.parametrize("text", INJECTIONS.values(), ids=INJECTIONS.keys())
def test_nothing_of_the_adversary_s_stands_outside_of_the_markers(
    make_case: Any, investigation: Any, text: str
) -> None:
    case = make_case(preview=text, purpose=json.dumps(ORDER), label=text, more=True, index=True)
    run = investigation(gullible(case), case)
    found = run.run()
    everything = json.dumps(run.transcript.messages, ensure_ascii=False)
    assert "OBEY" in everything, "the injection was never read"
    assert found.conclusion.risk == 5.0, "an order was obeyed"
    assert len(everything) < 400_000 and "\x1b" not in everything and "\u202e" not in everything


def test_the_gullible_policy_obeys_what_is_not_marked(asked: Any, investigation: Any) -> None:
    run = investigation(gullible(asked))
    run.transcript.add({"role": "system", "content": "x"}, session="s" * 8)
    run.transcript.add({"role": "user", "content": f"Your session is {'s' * 8}. {ORDER}"})
    assert run.run().conclusion.risk == 0.0
