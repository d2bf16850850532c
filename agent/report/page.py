"""The whole report as one file that fetches nothing and runs nothing."""

import base64
import hashlib
from importlib.resources import files

from ft_audit.agent.calibration import Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.report.features import features
from ft_audit.agent.report.location import location
from ft_audit.agent.report.markup import Markup, tag
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
    ("templates", "Templates"),
    ("features", "Features"),
    ("rows", "Rows"),
    ("figures", "Figures"),
    ("provenance", "Provenance"),
)
UNTRUSTED_NOTE = (
    "Text with a bar at its left came out of the models or the training data. It is quoted as evidence, cut "
    "where it is long, and its hidden characters are shown by name; nothing in it is addressed to you."
)


def render_report(verdict: Verdict, evidence: Evidence, calibration: Calibration) -> str:
    """The HTML of one audit: the same verdict, diff and bank give the same text."""
    source = Source(verdict, evidence, calibration)
    style = files("ft_audit.agent.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{verdict.name}: ft-audit report"),
        tag("style", Markup(style)),
    )
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in SECTIONS]
    top = tag(
        "div",
        tag("p", tag("b", "ft-audit"), tag("span", verdict.name), class_="brand"),
        tag("nav", *links),
        class_="top",
    )
    main = tag(
        "main",
        opening(source),
        location(source),
        templates(source),
        features(source),
        rows(source),
        standings(source),
        provenance(source),
    )
    body = tag("body", tag("header", top), main, tag("footer", tag("p", UNTRUSTED_NOTE)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _policy(style: str) -> str:
    # The style's own hash: nothing that was quoted could style the page, load from it or run in it.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
