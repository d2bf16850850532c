"""What an agent concluded, and how it got there: its claims, and every call with the answer it was given."""

import json
from itertools import zip_longest
from typing import Any

from ft_audit.agent.assessment import AgentFinding, Assessment, ClaimCheck
from ft_audit.agent.investigators.transcript import Transcript, names
from ft_audit.agent.report.markup import Child, Markup, join, tag, untrusted
from ft_audit.agent.report.numbers import fixed
from ft_audit.agent.report.parts import folded, section
from ft_audit.agent.report.source import Source
from ft_audit.engine.store import Store

SAID_CHARACTERS = 2_000
LINE_CHARACTERS, ANSWER_LINES = 1_500, 120
STATUS = {
    "concluded": "It reported.",
    "out of budget": "Its budget ended before it reported.",
    "gave up": "It would not use the tools.",
}
CONCLUDED = {
    "investigator": "",
    "aggregator": "The conclusion is a model's that read these and the checks.",
    "rule": "The conclusion is the fixed rule's: the median risk, where an investigation none of whose "
    "claims stands counts as 0.",
}


def assessment(source: Source) -> Markup | None:
    """The section of an agent's assessment; None where no agent was asked."""
    found = source.verdict.assessment
    if found is None:
        return None
    conclusion = found.conclusion
    lead = (
        f"{STATUS[found.status]} The model {found.usage.model!r} read the same evidence with the tools of "
        f"the profile {found.profile!r}. Its words are quoted: they are its own, and so are its mistakes."
    )
    if conclusion is None:
        return section("assessment", "Assessment", lead, _several(found), *_timelines(source), _usage(found))
    head: list[tuple[str, Child]] = [
        ("risk", f"{fixed(conclusion.risk, 1)} of 10, confidence {fixed(conclusion.confidence, 2)}"),
        ("root cause", conclusion.root_cause),
        ("summary", untrusted(conclusion.summary, SAID_CHARACTERS)),
        ("would change its mind", untrusted(conclusion.would_change_my_mind, SAID_CHARACTERS)),
    ]
    if conclusion.differs_from_statistics:
        head.append(("beside the statistics", untrusted(conclusion.differs_from_statistics, SAID_CHARACTERS)))
    listing = tag("dl", *(tag("div", tag("dt", name), tag("dd", said)) for name, said in head), class_="ids")
    claims = [_claim(finding) for finding in conclusion.findings]
    return section(
        "assessment",
        "Assessment",
        lead,
        listing,
        tag("div", tag("ol", *claims), class_="findings") if claims else None,
        _several(found),
        *_timelines(source),
        _usage(found),
    )


def _claim(finding: AgentFinding) -> Markup:
    parts = [("base", finding.base_control), ("innocent explanation", finding.alternative)]
    said = [
        tag("span", tag("b", name), untrusted(text, SAID_CHARACTERS), class_="part") for name, text in parts
    ]
    cited = [tag("li", tag("code", one)) for one in finding.evidence]
    percentile = finding.benign_percentile
    standing = (
        None if percentile is None else tag("p", f"benign percentile {fixed(percentile, 0)}", class_="note")
    )
    return tag(
        "li",
        tag("p", untrusted(finding.claim, SAID_CHARACTERS)),
        tag("blockquote", *said),
        standing,
        folded("Evidence ids", tag("ul", *cited, class_="readings")),
        class_="finding",
    )


def _several(found: Assessment) -> Markup | None:
    """What each investigation gave, and what was made of every claim, where claims were checked."""
    if not found.audits:
        return None
    head = tag("tr", *(tag("th", name) for name in ("", "tools", "end", "risk", "cause", "claims", "tokens")))
    rows = [
        tag(
            "tr",
            tag("td", f"{one.number}"),
            tag("td", one.profile),
            tag("td", one.status),
            tag("td", "–" if one.risk is None else fixed(one.risk, 1)),
            tag("td", one.root_cause or "–"),
            tag("td", f"{one.num_findings}"),
            tag("td", f"{one.usage.tokens_in + one.usage.tokens_out:,}"),
        )
        for one in found.audits
    ]
    mean = "" if found.mean_risk is None else f", {fixed(found.mean_risk, 1)} on average"
    checks = [_check(check) for check in found.checks]
    stand = sum(check.stands for check in found.checks)
    several = f"{len(found.audits)} investigations without sight of each other{mean}"
    return tag(
        "div",
        tag("h3", several if len(found.audits) > 1 else "One investigation, checked by another"),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll"),
        folded(f"Claims checked: {len(checks)}, of which {stand} stand", tag("ol", *checks))
        if checks
        else None,
        tag("p", CONCLUDED[found.concluded_by], class_="note"),
    )


def _check(check: ClaimCheck) -> Markup:
    made = ", ".join(map(str, check.audits))
    again = "asked again with the same answers" if check.reproduced else "the evidence is no longer the same"
    return tag(
        "li",
        tag("p", untrusted(check.claim, SAID_CHARACTERS)),
        tag("p", tag("b", check.ruling), f" (made by {made}; {again}): ", class_="note"),
        tag("blockquote", untrusted(check.reason, SAID_CHARACTERS)),
    )


def _timelines(source: Source) -> list[Markup | None]:
    found = source.verdict.assessment
    assert found is not None, "a report without an assessment has no timeline"
    return [_timeline(source, name) for name in names([one.number for one in found.audits])]


def _timeline(source: Source, name: str) -> Markup | None:
    entries = Transcript.open(Store(source.verdict.store), source.verdict.audit_id, name).entries
    answers = {e["message"]["tool_call_id"]: e["message"]["content"] for e in entries if _is_answer(e)}
    steps = []
    for entry, following in zip_longest(entries, entries[1:]):
        message = entry["message"]
        if message["role"] != "assistant":
            continue
        said = message.get("content")
        if following is not None and "citation" in following and not message.get("tool_calls"):
            # A call that the model wrote as text is answered in text.
            steps.append(_step(str(said), str(following["message"]["content"])))
            continue
        if said:
            steps.append(tag("li", tag("blockquote", untrusted(str(said), SAID_CHARACTERS))))
        for call in message.get("tool_calls", ()):
            function = call["function"]
            steps.append(_step(f"{function['name']} {function['arguments']}", answers.get(call["id"], "")))
    _, _, number = name.partition("-")
    which = f" of investigation {number}" if number else ""
    return folded(f"Timeline{which}: {len(steps)} steps", tag("ol", *steps)) if steps else None


def _is_answer(entry: dict[str, Any]) -> bool:
    return bool(entry["message"]["role"] == "tool")


def _step(asked: str, answer: str) -> Markup:
    lines = _indented(answer).splitlines()
    more = f"\n… {len(lines) - ANSWER_LINES:,} lines more" if len(lines) > ANSWER_LINES else None
    return tag(
        "li",
        folded(
            tag("code", untrusted(" ".join(asked.split()), SAID_CHARACTERS)),
            tag("pre", join((untrusted(line, LINE_CHARACTERS) for line in lines[:ANSWER_LINES]), "\n"), more),
        ),
    )


def _indented(answer: str) -> str:
    start = answer.find("{")
    try:
        return answer[:start] + json.dumps(json.loads(answer[start:]), indent=1, ensure_ascii=False)
    except ValueError:
        return answer


def _usage(found: Assessment) -> Markup:
    used = found.usage
    money = "" if used.money is None else f", {used.money:.4f} in money"
    return tag(
        "p",
        f"{used.requests} turns, {used.tool_calls} calls, {used.tokens_in:,} tokens read and "
        f"{used.tokens_out:,} written, {used.seconds:.0f} s{money}.",
        class_="note",
    )
