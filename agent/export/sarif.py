"""A verdict as SARIF 2.1.0: one run, a rule for each kind of finding, a result for each finding."""

import hashlib
import json
from typing import Any, NamedTuple

from ft_audit.agent.assessment import AgentFinding
from ft_audit.agent.audit import exit_code
from ft_audit.agent.export.located import Place, file_of, places_of, rows_of
from ft_audit.agent.query import Query, describe
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Finding, Verdict

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
QUOTE_CHARACTERS = 500
SAID_CHARACTERS = 2_000
FINGERPRINT = "ftAuditFinding/v1"
EXIT_WORDS = {0: "the risk is below the threshold", 10: "the risk is at or above the threshold"}
NO_CLAIM = "inconclusive or uncalibrated: no calibrated risk"


class Rule(NamedTuple):
    """What one kind of finding says."""

    rule_id: str
    name: str
    text: str


RULES = (
    Rule("figure", "FigureBeyondBank", "A figure of the fine-tune stands out among benign fine-tunes."),
    Rule("condition", "TemplateMovesModel", "A template of the training data moves the tuned model."),
    Rule("rows", "RowsDriveChange", "Training rows drive the change."),
    Rule("features", "FeaturesChanged", "Features of a dictionary changed."),
    Rule("tokenizer", "TokenizerChanged", "Tokenizer or chat template changed."),
    Rule("agent", "AgentClaim", "A language model that read the same evidence claims this."),
)
RULE_INDEX = {rule.rule_id: index for index, rule in enumerate(RULES)}


def sarif(verdict: Verdict) -> dict[str, Any]:
    """The SARIF log of one verdict; text of the candidate stands in properties only, as quotes."""
    code = exit_code(verdict)
    conclusion = verdict.assessment.conclusion if verdict.assessment else None
    claims = conclusion.findings if conclusion else []
    driver = {
        "name": "ft-audit",
        "version": verdict.ft_audit_version,
        "semanticVersion": verdict.ft_audit_version,
        "rules": [_rule(rule) for rule in RULES],
    }
    invocation = {
        "executionSuccessful": True,
        "exitCode": code,
        "exitCodeDescription": EXIT_WORDS.get(code, NO_CLAIM),
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"ft-audit/{_word(verdict.name)}/{verdict.audit_id}"},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(verdict, finding) for finding in verdict.findings),
            *(_claim(verdict, claim) for claim in claims),
        ],
        "properties": _properties(verdict),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def sarif_text(verdict: Verdict) -> str:
    """The log as JSON in ASCII, so that no quoted character can act on a terminal that shows it."""
    return json.dumps(sarif(verdict), indent=2, allow_nan=False) + "\n"


def level_of(verdict: Verdict, finding: Finding) -> str:
    """`error` beyond the benign range when the risk reaches the threshold; a measured change is a `note`."""
    if finding.level == "measured_change":
        return "note"
    beyond = finding.level == "beyond_benign" and verdict.at_or_above_threshold
    return "error" if beyond else "warning"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.rule_id,
        "name": rule.name,
        "shortDescription": {"text": rule.text},
        "fullDescription": {"text": rule.text},
        "help": {
            "text": "Open the audit's report.html for the evidence; `ft-audit verify` asks for it again."
        },
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["fine-tune", "audit"]},
    }


def _result(verdict: Verdict, finding: Finding) -> dict[str, Any]:
    places, rows = places_of(finding), rows_of(finding)
    standing = finding.standing
    percentile = None if standing is None else 100 * standing.num_below / standing.num_bank
    return {
        "ruleId": finding.kind,
        "ruleIndex": RULE_INDEX[finding.kind],
        "level": level_of(verdict, finding),
        "message": {"text": _plain(finding.statement)},
        "locations": [_location(verdict, places, rows[:1])],
        "partialFingerprints": {
            FINGERPRINT: _fingerprint(
                verdict, finding.kind, [place for place in places if place.kind != "row"]
            )
        },
        "properties": {
            "findingLevel": finding.level,
            "risk": verdict.risk,
            "p_value": None if standing is None else standing.p_value,
            "percentile": percentile,
            "rows": rows,
            "untrustedQuotes": [
                {"source": quote.source, "text": reveal(quote.text, QUOTE_CHARACTERS)}
                for quote in finding.quotes
            ],
            "evidence": [
                {**query.model_dump(mode="json"), "reads": _ask(query)} for query in finding.evidence
            ],
        },
    }


def _claim(verdict: Verdict, claim: AgentFinding) -> dict[str, Any]:
    assessment = verdict.assessment
    assert assessment is not None and assessment.conclusion is not None
    risk = assessment.conclusion.risk
    cited = [citation for citation in assessment.citations if citation.evidence_id in claim.evidence]
    # An agent may repeat what the candidate said, so that its own words are quotes too.
    said = {"claim": claim.claim, "base_control": claim.base_control, "alternative": claim.alternative}
    return {
        "ruleId": "agent",
        "ruleIndex": RULE_INDEX["agent"],
        "level": "warning",
        "message": {"text": f"An agent's claim, on {len(claim.evidence)} cited answers: see its properties."},
        "locations": [_location(verdict, [], [])],
        "partialFingerprints": {
            FINGERPRINT: _fingerprint(verdict, "agent", [Place("evidence", one) for one in claim.evidence])
        },
        "properties": {
            "risk": risk,
            "p_value": None,
            "percentile": claim.benign_percentile,
            "untrustedQuotes": [
                {"source": f"agent, {name}", "text": reveal(text, SAID_CHARACTERS)}
                for name, text in said.items()
            ],
            "evidence": [citation.model_dump(mode="json") for citation in cited],
        },
    }


def _plain(text: str) -> str:
    # Brackets make a link of a SARIF message, so they are written as themselves (section 3.11.6).
    return reveal(text, SAID_CHARACTERS).replace("[", "\\[").replace("]", "\\]")


def _ask(query: Query) -> str:
    return reveal(describe(query), QUOTE_CHARACTERS)


def _location(verdict: Verdict, places: list[Place], rows: list[int]) -> dict[str, Any]:
    # The line of a JSONL data set: rows are counted from 0, lines from 1.
    region = {"startLine": rows[0] + 1 if rows else 1}
    uri = file_of(verdict, about_rows=bool(rows))
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
    tool = {"name": "ft-audit", "kind": "tool", "fullyQualifiedName": "ft-audit"}
    named = [
        {"name": place.name, "kind": place.kind, "fullyQualifiedName": f"ft-audit/{place.kind}/{place.name}"}
        for place in places
    ]
    return {**location, "logicalLocations": [tool, *named]}


def _fingerprint(verdict: Verdict, kind: str, places: list[Place]) -> str:
    """The same finding of the same config in a later audit: its statement's numbers do not count."""
    said = [verdict.name, kind, *(f"{place.kind}={place.name}" for place in places)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _properties(verdict: Verdict) -> dict[str, Any]:
    names = ("audit_id", "name", "status", "risk", "threshold", "p_value", "no_finding", "headline", "diff")
    told = verdict.model_dump(mode="json", include=set(names))
    agent = verdict.assessment.conclusion if verdict.assessment else None
    return {
        **told,
        "base_sha256": verdict.base.sha256,
        "tuned_sha256": verdict.tuned.sha256,
        "num_bank": verdict.calibration.num_members,
        "agent_risk": None if agent is None else agent.risk,
    }


def _word(name: str) -> str:
    return reveal(name, 100).replace("/", "_")
