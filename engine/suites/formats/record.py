"""A row as its file gives it, before anybody asked what it means."""

from collections.abc import Mapping
from typing import NamedTuple, cast

from ft_audit.errors import DataError


class Record(NamedTuple):
    """One raw row; `fields` is the error itself where the file cannot give it, so that the reader decides."""

    fields: Mapping[str, object] | DataError
    where: str  # as an error names it: full path and line
    source: str  # as a report names it: file name and line
    row: int
    suite: str


def as_fields(value: object, where: str) -> Mapping[str, object] | DataError:
    """Return a decoded row as a mapping without empty columns, or the error that says why it is none."""
    if not isinstance(value, Mapping):
        return DataError(
            f"{where}: the row is {kind_of(value)}, not an object; "
            'write one object per row, such as {"messages": [...]}'
        )
    fields = cast("Mapping[object, object]", value)
    return {str(key): item for key, item in fields.items() if item is not None}


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words a user knows."""
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return names.get(type(value), type(value).__name__)
