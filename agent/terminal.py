"""Verdicts and leading differences as plain text for a terminal; quoted text cannot act on it."""

import textwrap

from ft_audit.agent.audit import Audit
from ft_audit.agent.cost import cost_words
from ft_audit.agent.dictionaries import agreements, coverages
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.report.numbers import fixed, plural, probability, share, short, signed
from ft_audit.agent.tables import table, titled
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Figure, Verdict
from ft_audit.agent.views import Agreement, Condition, Coverage, Feature, Row
from ft_audit.agent.words import figure_words, measure_words

TEXT_CHARACTERS = 60
PEAK_CHARACTERS = 24
CLAIM_CHARACTERS = 600
LINE = 110
LEVELS = {
    "beyond_benign": "beyond the benign range",
    "unranked": "no benign range",
    "measured_change": "measured change",
}


def audit_text(audit: Audit) -> str:
    """The verdict in a few lines, its figures as a table, and where the files are."""
    verdict = audit.verdict
    head = ("figure", "value", "rank", "benign range")
    figures = table(head, [_figure(figure) for figure in verdict.figures], numbers=(1,))
    findings = [
        _wrapped(f"{LEVELS[finding.level]}: {finding.statement}", "  ") for finding in verdict.findings
    ]
    return "\n".join(
        [
            f"{verdict.name}: {_risk(verdict)}",
            verdict.headline,
            *(_wrapped(sentence, "") for sentence in verdict.explanation),
            "",
            figures,
            "",
            "findings" if findings else "findings: none",
            *findings,
            *_assessment(verdict),
            "",
            f"cost     {cost_words(verdict.cost)}",
            f"verdict  {audit.verdict_file}",
            f"report   {audit.report_file}",
        ]
    )


def top_text(evidence: Evidence, limit: int) -> str:
    """The leading differences of a diff: features, templates and training rows."""
    parts = [_features(evidence, evidence.leading(limit))]
    seen = coverages(evidence)
    if seen:
        parts.append(_coverage(seen))
    agreed = [found for found in agreements(evidence) if found.num_leading]
    if agreed:
        parts.append(_agreement(agreed))
    column, _ = evidence.condition_measure
    conditions = [condition for condition in evidence.conditions() if not condition.is_plain][:limit]
    if conditions:
        rows = [_condition(condition, column) for condition in conditions]
        title = f"templates of the data set, by {measure_words(column)}"
        parts.append(titled(title, table(("excess", "rows", "template"), rows, numbers=(0, 1))))
    highest = evidence.rows(limit)
    if highest:
        title = f"training rows that drive the change, of {evidence.num_rows():,}"
        parts.append(titled(title, table(("row", "score", "text"), [_row(row) for row in highest], (0, 1))))
    return "\n\n".join(parts)


def _assessment(verdict: Verdict) -> list[str]:
    """What an agent concluded, beside the statistics; nothing where none was asked."""
    found = verdict.assessment
    if found is None:
        return []
    if found.conclusion is None:
        return ["", f"{found.usage.model}: {found.status}, no conclusion"]
    said = found.conclusion
    risk = f"risk {said.risk:.1f} of 10, confidence {said.confidence:.2f}"
    head = f"{found.usage.model}: {risk}, {said.root_cause}"
    if found.audits:
        stand = sum(check.stands for check in found.checks)
        head += (
            f"; {len(found.audits)} investigations, {stand} of {len(found.checks)} claims stand, "
            f"mean risk {found.mean_risk:.1f}"
        )
    claims = [_wrapped(reveal(finding.claim, CLAIM_CHARACTERS), "  ") for finding in said.findings]
    return ["", head, _wrapped(reveal(said.summary, CLAIM_CHARACTERS), "  "), *claims]


def _risk(verdict: Verdict) -> str:
    if verdict.risk is None:
        return verdict.status
    side = "at or above" if verdict.at_or_above_threshold else "below"
    return (
        f"{verdict.status}, risk {verdict.risk:.1f} of 10, {side} the threshold of {verdict.threshold:g}, "
        f"p = {probability(verdict.p_value)}"
    )


def _figure(figure: Figure) -> tuple[str, str, str, str]:
    standing = figure.standing
    name = figure_words(figure.name) + (" (primary)" if figure.primary else "")
    if standing is None:
        return name, short(figure.value), "-", "-"
    rank = f"{standing.rank} of {standing.num_bank + 1}"
    return name, short(figure.value), rank, f"{short(standing.bank_min)} to {short(standing.bank_max)}"


def _features(evidence: Evidence, leading: list[Feature]) -> str:
    if not leading:
        return "No feature changed beyond the noise of running the base twice."
    head = (
        "feature",
        "dictionary",
        "suite",
        "effect",
        "95% interval",
        "q",
        "fires base",
        "tuned",
        "peaks at",
        "label",
    )
    rows = [
        (
            str(feature.feature),
            feature.sae,
            feature.suite,
            signed(feature.effect),
            f"{signed(feature.effect_low)} to {signed(feature.effect_high)}",
            probability(feature.q_value),
            share(feature.rate_base),
            share(feature.rate_tuned),
            _peak(evidence, feature),
            _label(evidence, feature),
        )
        for feature in leading
    ]
    return titled(plural(len(leading), "leading feature"), table(head, rows, numbers=(0, 3, 5, 6, 7)))


def _peak(evidence: Evidence, feature: Feature) -> str:
    contexts = sorted(evidence.contexts(feature), key=lambda context: -context.peak)
    if not contexts or not contexts[0].activations:
        return ""
    strongest = contexts[0]
    place = strongest.activations.index(max(strongest.activations))
    return reveal(strongest.tokens[place], PEAK_CHARACTERS)


def _label(evidence: Evidence, feature: Feature) -> str:
    """The best label with its score; nothing where there is none."""
    best = evidence.label(feature.sae, feature.feature).best
    if best is None:
        return ""
    score = f" ({fixed(best.reliability[0].score, 2)})" if best.reliability else " (not scored)"
    return reveal(best.text, TEXT_CHARACTERS) + score


def _coverage(seen: list[Coverage]) -> str:
    number = max(len(found.best) for found in seen)
    leading = f"leading {number}"
    head = ("dictionary", "suite", "seen", "95% interval", "missed", leading, "strongest", "random", "best")
    rows = [
        (
            found.sae,
            found.suite,
            share(found.seen),
            f"{share(found.seen_low)} to {share(found.seen_high)}",
            short(found.missed),
            *(share(curve[-1]) for curve in (found.leading, found.strongest, found.random, found.best)),
        )
        for found in seen
    ]
    return titled(
        "share of the change that the dictionaries see", table(head, rows, numbers=(2, 4, 5, 6, 7, 8))
    )


def _agreement(agreed: list[Agreement]) -> str:
    head = ("dictionary", "in", "suite", "agreeing", "95% interval", "at random")
    rows = [
        (
            found.sae,
            found.other,
            found.suite,
            f"{found.num_agreeing} of {found.num_leading}",
            f"{share(found.low)} to {share(found.high)}",
            share(found.shuffled),
        )
        for found in agreed
    ]
    title = "leading features whose match in another dictionary changed alike"
    return titled(title, table(head, rows, numbers=(3, 5)))


def _condition(condition: Condition, column: str) -> tuple[str, str, str]:
    said = " + ".join(text for _, text in condition.parts)
    return signed(condition.measures.get(column)), str(condition.num_rows), reveal(said, TEXT_CHARACTERS)


def _row(row: Row) -> tuple[str, str, str]:
    # What the user said tells rows apart better than the system prompt they share.
    _, _, asked = row.preview.partition("\nuser: ")
    return str(row.row), short(row.primary_score), reveal(asked or row.preview, TEXT_CHARACTERS)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, LINE, initial_indent=indent, subsequent_indent=indent + "  ")
