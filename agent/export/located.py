"""Where a finding stands: the names that its evidence gives, and the file that a reader would open."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Finding, Verdict

NAME_CHARACTERS = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._~/-]")
_UP = re.compile(r"(^|/)(\.{1,2}(/|$))+")


class Place(NamedTuple):
    """One thing that a finding is about, such as `feature` and `5374`."""

    kind: str
    name: str


def places_of(finding: Finding) -> list[Place]:
    """Dictionary or layer, suite, feature, template and rows that the finding's evidence reads."""
    found: dict[Place, None] = {}
    for query in finding.evidence:
        for place in _places(query.group, query.table, query.select.model_dump()):
            found[place] = None
    for row in rows_of(finding):
        found[Place("row", str(row))] = None
    return list(found)


def rows_of(finding: Finding) -> list[int]:
    """The training rows that the finding's evidence lists, counted from 0, in order."""
    rows: set[int] = set()
    for query in finding.evidence:
        listed = query.table in ("rows", "conditions") and query.select.column in ("row", "rows")
        values = query.value if isinstance(query.value, list) else [query.value]
        if listed and query.select.reduce in ("only", "list"):
            rows.update(value for value in values if type(value) is int and value >= 0)
    return sorted(rows)


def file_of(verdict: Verdict, about_rows: bool) -> str:
    """The data set where the finding is about its rows, else the config; a relative path."""
    dataset = verdict.config.get("dataset")
    path = str(dataset.get("path")) if about_rows and isinstance(dataset, dict) else f"{verdict.name}.yaml"
    # A recipe's parameters or a machine's root are no part of a repository's file name.
    plain = path.partition("?")[0].rpartition(":")[2].replace("\\", "/")
    return _UNSAFE.sub("_", _UP.sub(r"\1", plain).lstrip("/")) or "audit.yaml"


def _places(group: str | None, table: str | None, select: dict[str, Any]) -> Iterator[Place]:
    if group is not None:
        kind, _, rest = group.partition("/")
        name, _, suite = rest.rpartition("/")
        yield Place("layer" if kind == "residual" else "dictionary", _shown(name or kind))
        yield Place("suite", _shown(suite))
    for clause in select["where"]:
        if clause["op"] != "eq":
            continue
        if clause["column"] in ("index", "feature"):
            yield Place("feature", _shown(str(clause["value"])))
        elif clause["column"] == "key" and table == "conditions":
            yield Place("template", _shown(str(clause["value"])))
    if group is None and table is None:
        yield Place("figure", _shown(select["column"].removeprefix("figures/")))


def _shown(name: str) -> str:
    return reveal(name, NAME_CHARACTERS)
