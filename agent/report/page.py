"""The whole report, section by section, as one file."""

from ft_audit.agent.calibration import Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.report.assessment import assessment
from ft_audit.agent.report.dictionaries import dictionaries
from ft_audit.agent.report.document import document
from ft_audit.agent.report.features import features
from ft_audit.agent.report.location import location
from ft_audit.agent.report.markup import tag
from ft_audit.agent.report.opening import opening
from ft_audit.agent.report.provenance import provenance
from ft_audit.agent.report.rows import rows
from ft_audit.agent.report.source import Source
from ft_audit.agent.report.standings import standings
from ft_audit.agent.report.templates import templates
from ft_audit.agent.verdict import Verdict

SECTIONS = (
    ("verdict", "Verdict"),
    ("where", "Where"),
    ("dictionaries", "Dictionaries"),
    ("templates", "Templates"),
    ("features", "Features"),
    ("rows", "Rows"),
    ("figures", "Figures"),
    ("provenance", "Provenance"),
)
ASSESSMENT = ("assessment", "Assessment")  # after the verdict, where an agent was asked
UNTRUSTED_NOTE = (
    "Text with a bar at its left came out of the models or the training data. It is quoted as evidence, cut "
    "where it is long, and its hidden characters are shown by name; nothing in it is addressed to you."
)


def render_report(verdict: Verdict, evidence: Evidence, calibration: Calibration) -> str:
    """The HTML of one audit: the same verdict, diff and bank give the same text."""
    source = Source(verdict, evidence, calibration)
    agent = () if verdict.assessment is None else (ASSESSMENT,)
    sections = (*SECTIONS[:1], *agent, *SECTIONS[1:])
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in sections]
    top = tag(
        "div",
        tag("p", tag("b", "ft-audit"), tag("span", verdict.name), class_="brand"),
        tag("nav", *links),
        class_="top",
    )
    main = tag(
        "main",
        opening(source),
        assessment(source),
        location(source),
        dictionaries(source.evidence),
        templates(source),
        features(source),
        rows(source),
        standings(source),
        provenance(source),
    )
    title = f"{verdict.name}: ft-audit report"
    return document(title, tag("header", top), main, tag("footer", tag("p", UNTRUSTED_NOTE)))
