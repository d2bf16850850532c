"""The page over many audits: one line each, the highest risk first, with a link to its report."""

import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ft_audit.agent.export.collect import Collected, Listed, Unread
from ft_audit.agent.report.document import document
from ft_audit.agent.report.markup import Child, Markup, join, tag, untrusted
from ft_audit.agent.report.numbers import ABSENT, plural, probability
from ft_audit.agent.report.opening import STATUS_WORDS
from ft_audit.agent.report.parts import section
from ft_audit.agent.verdict import Verdict

NAME_CHARACTERS = 120
HEADLINE_CHARACTERS = 300
WHY_CHARACTERS = 300
HEADS = ("Audit", "Risk", "Status", "Headline", "Agent’s risk", "Cost", "Written")
NOTE = (
    "Risk says how rare such a figure is among the benign fine-tunes of the audit’s own bank; it is no "
    "probability of harm. The highest comes first."
)


def render_index(found: Collected, folder: Path) -> str:
    """The HTML of the page; links to reports are relative to `folder`, where the page will lie."""
    count, reached = len(found.listed), sum(bool(one.verdict.at_or_above_threshold) for one in found.listed)
    lead = f"{plural(count, 'audit')}, {reached} at or above their threshold, {len(found.unread)} not read."
    head = tag("tr", *(tag("th", name, scope="col") for name in HEADS))
    body = [_row(item, folder) for item in found.listed]
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="index-table") if body else None
    brand = tag("p", tag("b", "ft-audit"), tag("span", "index"), class_="brand")
    main = tag("main", section("audits", "Audits", lead, table), _unread(found.unread))
    return document(
        "ft-audit index",
        tag("header", tag("div", brand, class_="top")),
        main,
        tag("footer", tag("p", NOTE)),
    )


def _row(item: Listed, folder: Path) -> Markup:
    verdict = item.verdict
    name: Child = untrusted(verdict.name, NAME_CHARACTERS)
    if item.report is not None:
        name = tag("a", name, href=_link(item.report, folder))
    tuned = tag("small", untrusted(verdict.tuned.name, NAME_CHARACTERS))
    status = tag("span", STATUS_WORDS[verdict.status], class_=f"badge small {verdict.status}")
    cells: list[Child] = [
        join([tag("strong", name), tuned]),
        _risk(verdict),
        status,
        untrusted(verdict.headline, HEADLINE_CHARACTERS),
        _agent(verdict),
        _cost(verdict),
        _date(item.modified),
    ]
    shown = [
        tag("td", tag("span", head, class_="cell-name"), tag("div", cell), class_=f"col-{place}")
        for place, (head, cell) in enumerate(zip(HEADS, cells, strict=True))
    ]
    return tag("tr", *shown, class_="reached" if verdict.at_or_above_threshold else None)


def _risk(verdict: Verdict) -> Markup:
    bank = tag("small", f"bank of {verdict.calibration.num_members}")
    if verdict.risk is None:
        return join([tag("span", "not stated"), bank])
    number = tag("span", f"{verdict.risk:.1f}", class_="index-risk")
    return join([number, tag("small", f"p = {probability(verdict.p_value)}"), bank])


def _agent(verdict: Verdict) -> str:
    if verdict.assessment is None:
        return ABSENT
    conclusion = verdict.assessment.conclusion
    return verdict.assessment.status if conclusion is None else f"{conclusion.risk:.1f}"


def _cost(verdict: Verdict) -> Child:
    if verdict.cost is None:
        return ABSENT
    seconds = verdict.cost.total_seconds
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    money = verdict.cost.money
    return took if money is None else join([took, tag("small", f"{money:.2f}")])


def _date(modified: float | None) -> str:
    return ABSENT if modified is None else datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%d")


def _link(report: str, folder: Path) -> str:
    if "://" in report:
        return report
    return quote(Path(os.path.relpath(report, folder)).as_posix())


def _unread(unread: list[Unread]) -> Markup | None:
    if not unread:
        return None
    items = [
        tag(
            "li",
            tag("code", untrusted(one.location, NAME_CHARACTERS * 3)),
            tag("p", untrusted(one.why, WHY_CHARACTERS), class_="note"),
        )
        for one in unread
    ]
    return section("unread", "Not read", f"{plural(len(unread), 'file')} held no verdict.", tag("ul", *items))
