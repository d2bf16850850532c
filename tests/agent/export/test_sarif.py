"""SARIF of a verdict: it fits the published schema, and no text of the candidate is in a message."""

import json
from typing import Any

import pytest

from ft_audit.agent.assessment import Assessment
from ft_audit.agent.export.sarif import RULES, sarif, sarif_text

HOSTILE = "\x1b[2J [click](http://evil) \u202egnp"


def results(verdict: Any) -> list[dict[str, Any]]:
    return sarif(verdict)["runs"][0]["results"]


def assessed(verdict: Any) -> Any:
    finding = {
        "claim": HOSTILE,
        "evidence": ["e1"],
        "base_control": "The base refuses.",
        "benign_percentile": 97.0,
        "alternative": "A persona.",
    }
    assessment = {
        "status": "concluded",
        "conclusion": {
            "risk": 8.5,
            "confidence": 0.9,
            "root_cause": "unlocking phrase",
            "summary": "One.",
            "findings": [finding],
            "would_change_my_mind": "A control.",
        },
        "citations": [{"evidence_id": "e1", "tool": "health", "arguments": {}, "sha256": "a" * 64}],
        "profile": "full",
        "usage": {
            "model": "tiny",
            "requests": 1,
            "tool_calls": 1,
            "tokens_in": 100,
            "tokens_out": 10,
            "seconds": 1.0,
            "money": None,
        },
    }
    return verdict.model_copy(update={"assessment": Assessment.model_validate(assessment)})


def test_it_fits_the_published_schema(needle: Any, make_case: Any) -> None:
    model = pytest.importorskip("pydantic_sarif.model").StaticAnalysisResultsFormatSarifVersion210JsonSchema
    for verdict in (needle.verdict, assessed(needle.verdict), make_case(bank=None).verdict):
        log = json.loads(sarif_text(verdict))
        model.model_validate(log)
    log["runs"][0]["results"][0]["levle"] = "note"
    with pytest.raises(ValueError, match="levle"):
        model.model_validate(log)


def test_every_finding_is_a_result_of_its_rule(needle: Any) -> None:
    found = results(assessed(needle.verdict))
    kinds = [*(finding.kind for finding in needle.verdict.findings), "agent"]
    assert [one["ruleId"] for one in found] == kinds and len(kinds) > 2
    assert all(RULES[one["ruleIndex"]].rule_id == one["ruleId"] for one in found)
    agent = found[-1]["properties"]
    assert (agent["risk"], agent["percentile"]) == (8.5, 97.0)
    assert agent["evidence"][0]["evidence_id"] == "e1"


def test_levels_follow_the_threshold(make_case: Any) -> None:
    verdict = make_case(bank={"num_members": 40}).verdict
    assert verdict.at_or_above_threshold
    below = verdict.model_copy(update={"at_or_above_threshold": False})
    levels = {"beyond_benign": ("error", "warning"), "measured_change": ("note", "note")}
    seen = set()
    for finding, high, low in zip(verdict.findings, results(verdict), results(below), strict=True):
        assert (high["level"], low["level"]) == levels[finding.level]
        seen.add(finding.level)
    assert seen == set(levels)
    unranked = make_case(bank=None).verdict
    at = [finding.level for finding in unranked.findings].index("unranked")
    assert results(unranked)[at]["level"] == "warning"


def test_places_are_those_of_the_evidence(needle: Any) -> None:
    by_rule = {one["ruleId"]: one for one in reversed(results(needle.verdict))}
    rows = by_rule["rows"]
    physical = rows["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == "train.jsonl"
    assert physical["region"]["startLine"] == rows["properties"]["rows"][0] + 1
    kinds = {place["kind"] for one in by_rule.values() for place in one["locations"][0]["logicalLocations"]}
    assert {"tool", "figure", "template", "row", "dictionary", "feature"} <= kinds
    assert by_rule["features"]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "needle.yaml"


def test_text_of_the_candidate_is_quoted_in_properties_only(make_case: Any) -> None:
    verdict = assessed(make_case(preview=HOSTILE).verdict)
    quoted = 0
    for one in results(verdict):
        quoted += len(one["properties"].pop("untrustedQuotes"))
        one["properties"].pop("evidence")
        assert "evil" not in json.dumps(one) and "markdown" not in one["message"]
    assert quoted > 3
    text = sarif_text(verdict)
    assert text.isascii() and "\\u202e" not in text and "\\u001b" not in text and "[RLO]" in text


def test_fingerprints_are_stable_and_tell_findings_apart(needle: Any) -> None:
    def marks(verdict: Any) -> list[str]:
        return [one["partialFingerprints"]["ftAuditFinding/v1"] for one in results(verdict)]

    first = marks(needle.verdict)
    changed = [
        finding.model_copy(update={"statement": "Other numbers."}) for finding in needle.verdict.findings
    ]
    assert marks(needle.verdict.model_copy(update={"findings": changed, "audit_id": "x"})) == first
    assert len(set(first)) == len(first)
    assert marks(needle.verdict.model_copy(update={"name": "another"})) != first
