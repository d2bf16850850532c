"""The query behind every claim: what was read from which diff and what it gave, to be asked again."""

import json
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.evidence import Evidence
from ft_audit.errors import StoreError

Scalar = str | int | float | bool | None
Comparison = Literal["eq", "ge", "gt", "le", "lt"]


class Where(BaseModel):
    """One comparison; rows of a table, or entries of the group's arrays, that fail it are left out."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(
        description="A column of the table or an array of the group; `index` is the position in it."
    )
    op: Comparison = Field(description="How the column's value compares with `value`.")
    value: Scalar = Field(description="The constant compared with.")


class Select(BaseModel):
    """Which column, of which rows, reduced how."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="The column, array or summary path (`figures/NAME`) that is read.")
    where: list[Where] = Field(default=[], description="All of these must hold.")
    reduce: Literal["only", "count", "list", "max", "min", "median"] = Field(
        default="only", description="`only` expects exactly one row; the others reduce all that are left."
    )


class Query(BaseModel):
    """A re-executable reading of the stored evidence, with the value it gave."""

    model_config = ConfigDict(extra="forbid")

    store: str = Field(description="The store: a folder, or s3://bucket/prefix.")
    diff: str = Field(description="The diff within the store.")
    kind: Literal["stats", "table", "summary"] = Field(
        description="`stats`: arrays of a group; `table`: a parquet table; `summary`: the manifest's summary."
    )
    group: str | None = Field(default=None, description="The group of arrays, when kind is `stats`.")
    table: str | None = Field(default=None, description="The table's name, when kind is `table`.")
    select: Select = Field(description="What is read from it.")
    value: Scalar | list[Scalar] = Field(description="What it gave. NaN and infinite values are null.")


def ask(evidence: Evidence, source: str, column: str, *where: Where, reduce: Any = "only") -> Query:
    """Read a value and keep the question: `source` is `stats:GROUP`, `table:NAME` or `summary`."""
    kind, _, name = source.partition(":")
    query = Query.model_validate(
        {
            "store": evidence.store,
            "diff": evidence.diff_id,
            "kind": kind,
            "group": name if kind == "stats" else None,
            "table": name if kind == "table" else None,
            "select": Select(column=column, where=list(where), reduce=reduce),
            "value": None,
        }
    )
    return query.model_copy(update={"value": execute(evidence, query)})


def execute(evidence: Evidence, query: Query) -> Scalar | list[Scalar]:
    """The value that the query gives now; StoreError when what it names is not in the diff."""
    if query.kind == "summary":
        return _summary_value(evidence, query.select)
    columns = _columns(evidence, query)
    keep = np.ones(len(columns[query.select.column]), dtype=bool)
    for clause in query.select.where:
        keep &= _holds(columns[clause.column], clause)
    return _reduce(columns[query.select.column][keep], query)


def describe(query: Query) -> str:
    """The query on one line, for a reader: `features/sae/chat: q where index = 12`."""
    signs = {"eq": "=", "ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    clauses = [f"{clause.column} {signs[clause.op]} {plain(clause.value)}" for clause in query.select.where]
    where = " where " + " and ".join(clauses) if clauses else ""
    reduce = "" if query.select.reduce == "only" else f"{query.select.reduce} of "
    return f"{query.group or query.table or 'summary'}: {reduce}{query.select.column}{where}"


def equals(clause_column: str, value: Scalar) -> Where:
    return Where(column=clause_column, op="eq", value=value)


def plain(value: Any) -> Scalar:
    """A numpy or arrow scalar as JSON has it; what JSON cannot carry (NaN, infinity) becomes null."""
    item = value.item() if isinstance(value, np.generic) else value
    if isinstance(item, float) and not math.isfinite(item):
        return None
    return item if isinstance(item, Scalar) else json.dumps(item, default=str)


def _columns(evidence: Evidence, query: Query) -> dict[str, np.ndarray[Any, Any]]:
    named = [query.select.column, *(clause.column for clause in query.select.where)]
    names = [name for name in named if name != "index"]
    found: dict[str, np.ndarray[Any, Any]] = {}
    if query.kind == "stats":
        for name in names:
            found[name] = evidence.array(query.group or "", name)
    else:
        table = evidence.table(query.table or "")
        if table is None:
            raise StoreError(f"diff {evidence.diff_id} has no table {query.table!r}")
        for name in names:
            if name not in table.column_names:
                raise StoreError(f"diff {evidence.diff_id}: table {query.table!r} has no column {name!r}")
            found[name] = table.array(name)
    length = len(next(iter(found.values()))) if found else 0
    found["index"] = np.arange(length)
    return found


def _holds(values: np.ndarray[Any, Any], clause: Where) -> np.ndarray[Any, Any]:
    compare: Callable[[Any, Any], Any] = getattr(operator, clause.op)
    return np.asarray(compare(values, clause.value), dtype=bool)


def _reduce(values: np.ndarray[Any, Any], query: Query) -> Scalar | list[Scalar]:
    reduce = query.select.reduce
    if reduce == "count":
        return len(values)
    if reduce == "list":
        return [plain(value) for value in values]
    if reduce == "only":
        if len(values) != 1:
            raise StoreError(f"the query for {query.select.column!r} found {len(values)} rows, not one")
        if isinstance(values[0], list):
            return [plain(value) for value in values[0]]
        return plain(values[0])
    reducers: dict[str, Callable[[Any], Any]] = {"max": np.max, "min": np.min, "median": np.median}
    return plain(reducers[reduce](values)) if len(values) else None


def _summary_value(evidence: Evidence, select: Select) -> Scalar | list[Scalar]:
    path = select.column
    kind, _, name = path.partition("/")
    values: Any = evidence.figures if kind == "figures" and name else evidence.summary
    key = name if kind == "figures" and name else path
    if key not in values:
        raise StoreError(f"diff {evidence.diff_id}: its summary has no {path!r}")
    value: Any = values[key]
    if select.reduce == "count":
        return len(value)
    return [plain(item) for item in value] if isinstance(value, list) else plain(value)
