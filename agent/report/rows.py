"""The training rows that drive the change most, with what the data set alone would have said of them."""

import math
from collections.abc import Mapping

from ft_audit.agent.investigators.findings import HIGHEST_ROWS, flag_conditions
from ft_audit.agent.report.markup import Child, Markup, tag, untrusted
from ft_audit.agent.report.numbers import fixed, places_for, plural
from ft_audit.agent.report.parts import folded, key, legend, section
from ft_audit.agent.report.plots import bar
from ft_audit.agent.report.source import Source
from ft_audit.agent.views import Row

PREVIEW_CHARACTERS = 300
SYSTEM_CHARACTERS = 120
OPEN_ROWS = 10


def rows(source: Source) -> Markup:
    """The highest rows by the models' evidence, beside the data-only baselines."""
    highest = source.evidence.rows(HIGHEST_ROWS)
    if not highest:
        return section("rows", "Training rows", "No training data was given, so no rows could be ranked.")
    conditions = [condition for condition, _ in flag_conditions(source.evidence, source.calibration)]
    flagged = {row for condition in conditions for row in condition.rows}
    columns = source.evidence.baseline_columns()
    largest = {column: _largest([row.baselines[column] for row in highest]) for column in columns}
    top_score = _largest([row.primary_score for row in highest])
    body = [_row(n, row, top_score, largest, row.row in flagged) for n, row in enumerate(highest, 1)]
    rest = body[OPEN_ROWS:]
    marked = legend(key("line tuned", "shares a template that stands out"), key("line", "any other row"))
    return section(
        "rows",
        "Training rows that drive the change",
        _lead(source, highest, flagged),
        marked if flagged else None,
        _table(columns, body[:OPEN_ROWS]),
        folded(plural(len(rest), "further row"), _table(columns, rest)) if rest else None,
        _baselines(source, highest),
    )


def _lead(source: Source, highest: list[Row], flagged: set[int]) -> str:
    total = source.evidence.num_rows()
    ranking = f"The {len(highest)} of {total:,} rows that the models’ evidence points at most."
    if not flagged:
        return f"{ranking} A ranking always has a top: no template stands out, so these are no finding."
    among = sum(row.row in flagged for row in highest)
    return f"{ranking} {among} of them share a template that stands out."


def _baselines(source: Source, highest: list[Row]) -> Markup | None:
    columns = source.evidence.baseline_columns()
    if not columns:
        return None
    ours, count = {row.row for row in highest}, len(highest)
    theirs = {column: {row.row for row in source.evidence.rows(count, by=column)} for column in columns}
    said = ", ".join(f"by {_words(column)} {len(ours & theirs[column])}" for column in columns)
    return tag(
        "p",
        f"How many of these {count} rows the data set alone, without any model, would also rank among its "
        f"{count} highest: {said}.",
        class_="note",
    )


def _table(columns: list[str], body: list[Markup]) -> Markup:
    head = tag(
        "tr",
        tag("th", "Rank", scope="col"),
        tag("th", "Training row", scope="col"),
        tag("th", "Models’ evidence", scope="col", class_="num"),
        *(tag("th", f"Data alone: {_words(column)}", scope="col", class_="num") for column in columns),
    )
    return tag("table", tag("thead", head), tag("tbody", *body), class_="rows-table")


def _row(rank: int, row: Row, top_score: float, largest: Mapping[str, float], flagged: bool) -> Markup:
    system: Child = None
    # A preview that begins with the system prompt already says it.
    if row.system and not row.preview.startswith("system: "):
        system = tag("span", tag("b", "system"), untrusted(row.system, SYSTEM_CHARACTERS), class_="part")
    preview = tag("span", untrusted(row.preview, PREVIEW_CHARACTERS), class_="part")
    measures = [_measure("models’ evidence", row.primary_score, top_score, "tuned")]
    for column, value in row.baselines.items():
        measures.append(_measure(f"data: {_words(column)}", value, largest[column], "bank"))
    return tag(
        "tr",
        tag("td", f"{rank}.", tag("small", f"row {row.row}"), class_="place"),
        tag("td", tag("blockquote", system, preview), class_="row-text"),
        *measures,
        class_="flagged" if flagged else None,
    )


def _measure(name: str, value: float, largest: float, kind: str) -> Markup:
    shown = fixed(value, places_for([largest]))
    plot = bar(value, largest, kind, f"{name}: {shown}")
    return tag("td", tag("span", name, class_="cell-name"), tag("span", shown), plot, class_="num barred")


def _largest(values: list[float]) -> float:
    return max((value for value in values if math.isfinite(value)), default=0.0)


def _words(column: str) -> str:
    return column.removeprefix("baseline_").replace("_", " ")
