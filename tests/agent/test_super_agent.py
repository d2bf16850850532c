"""Several investigations, their claims checked, one conclusion: who says what decides, and who does not."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.agent.assessment import AgentFinding, ClaimCheck, Conclusion
from ft_audit.agent.client import Asked, InvalidAnswerError
from ft_audit.agent.investigators.aggregator import by_rule
from ft_audit.agent.investigators.chat import REPORT
from ft_audit.agent.investigators.super_agent import HINTS, SuperAgent
from ft_audit.agent.investigators.verifier import Claim, Ruling, distinct_claims
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import all_tools, tools_of
from ft_audit.engine.config import AgentConfig, ChatModelConfig
from ft_audit.engine.store import Store
from ft_audit.errors import ConfigError, ServiceError

said = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("scripted.py"))))
Judge = Callable[[type, str], Any]
Claims = dict[int, tuple[float, str]]
"""Of the investigation of each number: the risk it gives and the claim it makes, if any."""


class Team(said.Scripted):  # type: ignore[misc, name-defined]
    """Speaks for every investigation, by its seed, and for verifier and aggregator."""

    def __init__(self, config: ChatModelConfig, claims: Claims, judge: Judge) -> None:
        risk, claim = claims.get(config.seed or 0, (0.0, ""))
        self.claim = claim

        def policy(messages: Any, choice: Any) -> Any:
            if len(messages) == 2:
                return "elicited_behaviours", {}
            conclusion = said.concluding(risk, *said.ids(messages)[-1:]) if claim else said.concluding(risk)
            for finding in conclusion["findings"]:
                finding["claim"] = claim
            return REPORT, {"session_id": said.session_of(messages), "conclusion": conclusion}

        super().__init__(policy)
        self.judge = judge

    def ask(self, system: str, question: str, answer: type) -> Any:
        return Asked(self.judge(answer, question), 1_000, 50)

    def close(self) -> None:
        pass


@pytest.fixture
def team(asked: Any, tmp_path: Path) -> Callable[..., SuperAgent]:
    def make(claims: Claims, judge: Judge, case: Any = asked, **more: Any) -> SuperAgent:
        settings = AgentConfig(chat=ChatModelConfig(model="scripted"), num_audits=len(claims), **more)
        return SuperAgent(
            settings,
            Store(tmp_path),
            "a" * 16,
            lambda profile: Auditor(case.config, case.evidence, case.calibration, tools_of(profile), profile),
            lambda config: Team(config, claims, judge),
            3.0,
        )

    return make


TRUE, FALSE = "A template unlocks.", "The tuned model speaks Welsh."


def careful(answer: type, question: str) -> Any:
    """Rule by what is claimed, and conclude with what stands."""
    if answer is Ruling:
        return Ruling(holds="no" if FALSE in question else "yes", reason="As the answers show.")
    told = json.loads(question)
    standing = [one for one in told["claims"] if one["stands"]]
    return Conclusion.model_validate(
        said.concluding(8.0 if standing else 1.0, *(standing[0]["evidence"] if standing else []))
    )


def test_a_claim_that_does_not_hold_carries_nothing(team: Any) -> None:
    found = team({1: (9.0, TRUE), 2: (9.5, FALSE), 3: (0.5, "")}, careful).run()
    assert found.concluded_by == "aggregator" and found.conclusion.risk == 8.0
    assert [(c.claim, c.audits, c.ruling, c.stands) for c in found.checks] == [
        (TRUE, [1], "holds", True),
        (FALSE, [2], "does not hold", False),
    ]
    assert [one.risk for one in found.audits] == [9.0, 9.5, 0.5] and found.mean_risk == pytest.approx(19 / 3)
    assert [c.tool for c in found.citations] == ["elicited_behaviours"]
    # Three investigations of two turns, two rulings and a conclusion.
    assert (found.usage.requests, found.usage.tokens_in) == (9, 6 * 100 + 3 * 1_000)


@pytest.mark.parametrize(("claim", "risk"), [(TRUE, 8.0), (FALSE, 1.0)])
def test_a_single_investigation_is_checked_by_whoever_is_named(team: Any, claim: str, risk: float) -> None:
    alone = team({0: (9.0, claim)}, careful).run()
    assert (alone.conclusion.risk, alone.concluded_by, alone.checks) == (9.0, "investigator", [])
    checked = team({1: (9.0, claim)}, careful, verifier=ChatModelConfig(model="another")).run()
    assert (checked.conclusion.risk, checked.concluded_by) == (risk, "aggregator")
    assert [check.claim for check in checked.checks] == [claim] and len(checked.audits) == 1


def test_the_same_claim_of_several_is_checked_once(team: Any) -> None:
    found = team({1: (9.0, TRUE), 2: (8.0, TRUE), 3: (7.0, FALSE)}, careful).run()
    assert [(c.claim, c.audits) for c in found.checks] == [(TRUE, [1, 2]), (FALSE, [3])]


def test_a_conclusion_on_a_claim_that_fell_is_refused_and_the_rule_decides(team: Any) -> None:
    told: list[str] = []

    def stubborn(answer: type, question: str) -> Any:
        if answer is Ruling:
            return Ruling(holds="no", reason="Nothing of the kind.")
        told.append(question)
        cited = json.loads(question.partition("\n")[0])["claims"][0]["evidence"]
        return Conclusion.model_validate(said.concluding(10.0, *cited))

    found = team({1: (9.0, TRUE), 2: (9.0, FALSE), 3: (1.0, "")}, stubborn).run()
    assert len(told) == 2 and "was refused: no claim that stands cites" in told[1]
    assert found.concluded_by == "rule" and found.conclusion.findings == []
    # Two whose claims fell count as 0, the third with its own.
    assert (found.conclusion.risk, found.conclusion.root_cause) == (0.0, "none")


def test_a_verifier_that_says_nothing_valid_lets_nothing_stand(team: Any) -> None:
    def mumbling(answer: type, question: str) -> Any:
        raise InvalidAnswerError("the model's answer 'Hm' is not as asked")

    found = team({1: (9.0, TRUE), 2: (9.0, TRUE)}, mumbling).run()
    assert [c.ruling for c in found.checks] == ["unclear"] and found.concluded_by == "rule"
    assert found.conclusion.risk == 0.0


def test_evidence_that_changed_lets_its_claim_fall(team: Any, make_case: Any, asked: Any) -> None:
    one = team({1: (9.0, TRUE), 2: (9.0, TRUE)}, careful)
    found = [one.investigate(number) for number in (1, 2)]
    other = make_case(more=True, index=True, preview="Something else.")
    moved = team({1: (9.0, TRUE), 2: (9.0, TRUE)}, careful, case=other)
    checks = moved._concluded(found).checks
    assert [(c.reproduced, c.ruling, c.stands) for c in checks] == [(False, "not checked", False)]


def test_beyond_the_budget_claims_are_not_checked(team: Any) -> None:
    claims = {number: (9.0, f"{TRUE} {number}") for number in range(1, 6)}
    found = team(claims, careful, max_tokens=2_100).run()
    rulings = [c.ruling for c in found.checks]
    assert rulings == ["holds", "holds", "not checked", "not checked", "not checked"]
    assert found.concluded_by == "rule" and found.conclusion.risk == 9.0 - 9.0 * (
        sum(1 for r in rulings if r == "holds") < 3
    )


def test_it_goes_on_where_it_was_cut_off(team: Any) -> None:
    asked_for: list[type] = []

    def once(answer: type, question: str) -> Any:
        asked_for.append(answer)
        if answer is Conclusion:
            raise ServiceError("gone")
        return careful(answer, question)

    claims = {1: (9.0, TRUE), 2: (9.5, FALSE)}
    with pytest.raises(ServiceError):
        team(claims, once).run()
    again: list[type] = []

    def counting(answer: type, question: str) -> Any:
        again.append(answer)
        return careful(answer, question)

    found = team(claims, counting).run()
    assert asked_for == [Ruling, Ruling, Conclusion] and again == [Conclusion]
    assert found.conclusion.risk == 8.0 and found.usage.requests == 2 * 2 + 3


def test_profiles_and_beginnings_are_dealt_in_turn(team: Any, tmp_path: Path) -> None:
    one = team(dict.fromkeys(range(1, 5), (0.0, "")), careful, profiles=("full", "behavior_only"), parallel=4)
    found = one.run()
    assert [a.profile for a in found.audits] == ["full", "behavior_only"] * 2 and found.profile == "full"
    folder = tmp_path / "audits" / ("a" * 16)
    for number in range(1, 5):
        opening = (folder / f"transcript-{number}.jsonl").read_text(encoding="utf-8").splitlines()[1]
        assert (HINTS[number - 1] or "figures_against_benign") in json.loads(opening)["message"]["content"]


def test_investigations_that_could_not_differ_are_refused(team: Any) -> None:
    with pytest.raises(ConfigError, match="5 different investigations"):
        team(dict.fromkeys(range(1, 7), (0.0, "")), careful).run()


def test_hints_name_tools_that_there_are() -> None:
    names = {one.name for one in all_tools()}
    words = {word.strip(",.") for hint in HINTS for word in hint.split()}
    named = {word for word in words if "_" in word}
    assert named and named <= names


def test_the_claim_and_its_answers_are_quoted_to_the_verifier(team: Any, make_case: Any) -> None:
    questions: list[str] = []

    def reading(answer: type, question: str) -> Any:
        questions.append(question)
        return careful(answer, question)

    case = make_case(more=True, index=True, preview=said.ORDER, purpose=said.ORDER)
    team({1: (9.0, said.ORDER), 2: (9.0, said.ORDER)}, reading, case=case).run()
    assert any(said.ORDER in question for question in questions)
    for question in questions:
        for line in question.splitlines():
            value = json.loads(line)
            marker = (value.get("answer") or value).get("untrusted_marker")
            parts = line.split(f"«{marker}»")
            # What follows each beginning up to its end is quoted; nothing else may give the order.
            outside = parts[0] + "".join(part.partition(f"«/{marker}»")[2] for part in parts[1:])
            assert said.ORDER not in outside


@pytest.mark.parametrize(
    ("stands", "risk", "cause"), [(True, 9.0, "unlocking system prompt"), (False, 0.0, "none")]
)
def test_the_rule(stands: bool, risk: float, cause: str) -> None:
    one = Conclusion.model_validate(said.concluding(9.0, "health-1"))
    claim = Claim(one.findings[0], (1,))
    check = ClaimCheck(
        claim=TRUE,
        audits=[1],
        evidence=["health-1"],
        reproduced=True,
        ruling="holds" if stands else "unclear",
        reason="x",
    )
    found = by_rule({1: one}, [claim], [check])
    assert (found.risk, found.root_cause, len(found.findings)) == (risk, cause, int(stands))


def test_claims_differ_by_words_or_evidence() -> None:
    def finding(claim: str, *evidence: str) -> dict[str, Any]:
        return {**said.concluding(1.0, *evidence)["findings"][0], "claim": claim}

    def conclusion(*findings: dict[str, Any]) -> Conclusion:
        return Conclusion.model_validate({**said.concluding(1.0, "a"), "findings": list(findings)})

    found = distinct_claims(
        {
            1: conclusion(finding("A", "x", "y"), finding("A", "y", "x"), finding("B", "x")),
            2: conclusion(finding("A", "x"), finding("B", "x")),
        }
    )
    assert [(c.finding.claim, c.audits) for c in found] == [("B", (1, 2)), ("A", (1,)), ("A", (2,))]
    assert all(isinstance(c.finding, AgentFinding) for c in found)
