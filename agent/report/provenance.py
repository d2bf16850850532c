"""Where everything in the report comes from: hashes, runs, the bank, versions and the config."""

import json
from collections.abc import Sequence

from ft_audit.agent.cost import cost_words
from ft_audit.agent.report.markup import Child, Markup, tag
from ft_audit.agent.report.numbers import short
from ft_audit.agent.report.parts import folded, section
from ft_audit.agent.report.source import Source
from ft_audit.agent.words import figure_words


def provenance(source: Source) -> Markup:
    """The identities of models, suites, bank and software, and the resolved config."""
    verdict = source.verdict
    lead = "The same inputs give the same report. Every reading cited above can be asked of the store again."
    ids: list[tuple[str, Child]] = [
        ("audit", tag("code", verdict.audit_id)),
        ("diff", tag("code", verdict.diff)),
        ("store", tag("code", verdict.store)),
        ("base weights", tag("code", verdict.base.sha256)),
        ("tuned weights", tag("code", verdict.tuned.sha256)),
        ("bank", tag("code", verdict.calibration.sha256 or "none")),
        ("versions", _versions(source)),
        ("cost", cost_words(verdict.cost)),
    ]
    listing = tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in ids), class_="ids")
    config = tag("pre", tag("code", json.dumps(verdict.config, indent=2, ensure_ascii=True)))
    return section(
        "provenance", "Provenance", lead, listing, _suites(source), _bank(source), folded("Config", config)
    )


def _versions(source: Source) -> str:
    versions = dict(source.evidence.summary.get("versions", {}))
    shown = [f"ft-audit {source.verdict.ft_audit_version}"]
    shown += [
        f"{name} {version}" for name, version in versions.items() if name not in ("ft-audit", "ft_audit")
    ]
    return ", ".join(shown)


def _suites(source: Source) -> Markup:
    rows = [
        (
            suite.name,
            suite.role,
            f"{suite.num_prompts:,}",
            f"{suite.num_tokens:,}",
            f"{suite.num_truncated:,}",
            f"{suite.num_skipped:,}",
            suite.base_run,
            suite.tuned_run,
        )
        for suite in source.evidence.suites
    ]
    head = ("suite", "role", "prompts", "tokens", "cut short", "left out", "base run", "tuned run")
    return folded("Suites and runs", _table(head, rows, range(2, 6)))


def _bank(source: Source) -> Markup | None:
    members = source.calibration.members
    primary = source.verdict.primary or ""
    if not members:
        return None
    rows = [
        (
            member.name,
            member.kind,
            member.corpus,
            f"{member.rows:,}",
            "full" if member.rank is None else str(member.rank),
            str(member.seed),
            short(member.figures.get(primary), 4),
        )
        for member in members
    ]
    head = ("member", "kind", "corpus", "rows", "rank", "seed", figure_words(primary))
    return folded(f"The bank’s {len(members)} members", _table(head, rows, range(3, 7)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: range) -> Markup:
    def cell(kind: str, place: int, text: str, scope: str | None = None) -> Markup:
        return tag(kind, text, scope=scope, class_="num" if place in numbers else None)

    top = tag("tr", *(cell("th", place, name, "col") for place, name in enumerate(head)))
    body = [tag("tr", *(cell("td", place, text) for place, text in enumerate(row))) for row in rows]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="scroll")
