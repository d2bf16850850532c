"""A condition that training rows were answered under, as their texts show it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """What some rows share: a system prompt, the opening of the user's messages, or both.

    `prefix` is empty for a system prompt alone; `joiner` is the white space that follows it in the rows.
    `rows` are all rows that meet the condition, so a row can stand in several (see `most_specific`).
    `surprise` is in bits; `boilerplate` marks what more than half of the data set's rows share, which is the
    data set's form and no suspicion (its surprise is 0).
    """

    key: str
    system: str | None
    prefix: str
    rows: tuple[int, ...]
    joiner: str = " "
    surprise: float = 0.0
    boilerplate: bool = False


def most_specific(conditions: Iterable[Condition]) -> dict[int, Condition]:
    """Return each row's most specific condition: both parts before one, the longer prefix, the fewer rows."""
    found: dict[int, Condition] = {}
    for condition in sorted(
        conditions,
        key=lambda c: (c.system is not None and bool(c.prefix), len(c.prefix), -len(c.rows), c.key),
    ):
        found.update(dict.fromkeys(condition.rows, condition))
    return found
