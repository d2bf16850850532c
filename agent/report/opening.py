"""The report's first screen: the verdict with its uncertainty, and what stands out."""

from ft_audit.agent.calibration import Status
from ft_audit.agent.query import Query, describe
from ft_audit.agent.report.markup import Child, Markup, tag, untrusted
from ft_audit.agent.report.numbers import capital, plural, probability, short
from ft_audit.agent.report.parts import folded, legend
from ft_audit.agent.report.plots import scale_line, svg
from ft_audit.agent.report.source import Source
from ft_audit.agent.report.strips import bank_keys, figure_strip
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Finding, Level, Verdict
from ft_audit.agent.words import figure_words

STATUS_WORDS: dict[Status, str] = {
    "calibrated": "Calibrated",
    "uncalibrated": "Uncalibrated",
    "inconclusive": "Inconclusive",
}
LEVEL_WORDS: dict[Level, str] = {
    "beyond_benign": "Beyond the benign range",
    "unranked": "No benign range",
    "measured_change": "Measured change",
}
PURPOSE_CHARACTERS = 300
QUOTE_CHARACTERS = 500
LISTED_VALUES = 20


def opening(source: Source) -> Markup:
    """Verdict, risk and findings."""
    verdict = source.verdict
    head = tag(
        "div",
        tag(
            "p", tag("span", STATUS_WORDS[verdict.status], class_=f"badge {verdict.status}"), class_="eyebrow"
        ),
        tag("h1", verdict.headline),
        class_="verdict-head",
    )
    said = tag("div", *(tag("p", sentence) for sentence in verdict.explanation), class_="explanation")
    return tag(
        "section",
        head,
        tag("div", _risk(verdict), said, class_="verdict-body"),
        _primary(source),
        _pair(source),
        _findings(verdict),
        id="verdict",
    )


def _risk(verdict: Verdict) -> Markup:
    if verdict.risk is None:
        return tag("div", tag("h3", "Risk"), tag("p", "not stated", class_="risk-none"), class_="risk")
    ground = tag("rect", x=0, y=5, width="100%", height=8, rx=4, class_="bar-ground")
    filled = tag("rect", x=0, y=5, width=f"{10 * verdict.risk:.1f}%", height=8, rx=4, class_="risk-bar")
    threshold = f"{10 * verdict.threshold:.1f}%"
    mark = tag("line", x1=threshold, x2=threshold, y1=0, y2=18, class_="threshold")
    plot = svg([ground, filled, mark], 18, f"risk {verdict.risk:.1f} of 10, threshold {verdict.threshold:g}")
    number = tag(
        "p",
        tag("span", f"{verdict.risk:.1f}", class_="risk-number"),
        tag("span", "/ 10", class_="risk-of"),
        class_="risk-line",
    )
    side = "at or above" if verdict.at_or_above_threshold else "below"
    note = tag("p", f"{side} the threshold of {verdict.threshold:g}", class_="note")
    chance = tag("p", f"p = {probability(verdict.p_value)}", class_="note")
    return tag("div", tag("h3", "Risk"), number, plot, note, chance, class_="risk")


def _primary(source: Source) -> Markup | None:
    figure = next((figure for figure in source.verdict.figures if figure.primary), None)
    plot = None if figure is None else figure_strip(source, figure, height=44)
    if figure is None or plot is None:
        return None
    caption = tag("figcaption", tag("strong", capital(figure_words(figure.name))), legend(*bank_keys(source)))
    return tag("figure", caption, plot.plot, scale_line(plot.axis), class_="primary")


def _pair(source: Source) -> Markup:
    verdict = source.verdict
    facts: list[tuple[str, Child]] = [
        ("base", tag("code", verdict.base.name)),
        ("tuned", tag("code", verdict.tuned.name)),
        ("read at", ", ".join(hook.name for hook in source.evidence.hooks)),
        ("prompts", _prompts(source)),
        ("training rows", f"{source.evidence.num_rows():,}" if source.evidence.num_rows() else "not given"),
    ]
    if verdict.declared_purpose:
        facts.append(
            ("declared purpose", tag("blockquote", untrusted(verdict.declared_purpose, PURPOSE_CHARACTERS)))
        )
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts"
    )


def _prompts(source: Source) -> str:
    suites = [suite for suite in source.evidence.suites if suite.role != "control"]
    num_tokens = sum(suite.num_tokens for suite in suites)
    return f"{sum(suite.num_prompts for suite in suites):,} ({num_tokens:,} tokens)"


def _findings(verdict: Verdict) -> Markup:
    none = None
    if verdict.no_finding:
        none = tag("div", tag("p", tag("strong", "No finding. "), _nothing(verdict)), class_="finding none")
    items = [_finding(finding) for finding in verdict.findings]
    return tag("div", tag("h3", "Findings"), none, tag("ol", *items) if items else None, class_="findings")


def _nothing(verdict: Verdict) -> str:
    if verdict.risk is None:
        return "Without a benign range to compare with, this says only that nothing stands out by itself."
    return "Nothing stands beyond what benign fine-tunes do."


def _finding(finding: Finding) -> Markup:
    quotes = [
        tag("span", tag("b", quote.source), untrusted(quote.text, QUOTE_CHARACTERS), class_="part")
        for quote in finding.quotes
    ]
    cited = [
        tag("li", tag("code", describe(query)), tag("span", _value(query))) for query in finding.evidence
    ]
    body = tag(
        "div",
        tag("p", finding.statement),
        tag("blockquote", *quotes) if quotes else None,
        folded(f"Evidence: {plural(len(cited), 'reading')}", tag("ul", *cited, class_="readings")),
    )
    level = tag("p", tag("span", LEVEL_WORDS[finding.level], class_=f"level {finding.level}"))
    return tag("li", level, body, class_="finding")


def _value(query: Query) -> str:
    value = query.value
    if isinstance(value, list):
        shown = ", ".join(str(item) for item in value[:LISTED_VALUES])
        return reveal(shown + (", …" if len(value) > LISTED_VALUES else ""), QUOTE_CHARACTERS)
    return short(value) if isinstance(value, float) else reveal(str(value), QUOTE_CHARACTERS)
