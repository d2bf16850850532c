"""A condition that training rows were answered under, as their texts show it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """What some rows share: a system prompt, the opening or the end of the user's messages, or several.

    `prefix` and `suffix` are empty where the rows share none; `joiner` is the white space that follows the
    prefix in the rows. What stands inside of messages is taken for a suffix.
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
    suffix: str = ""

    @property
    def num_parts(self) -> int:
        """How many things the rows share: one to three."""
        return (self.system is not None) + bool(self.prefix) + bool(self.suffix)


def most_specific(conditions: Iterable[Condition]) -> dict[int, Condition]:
    """Return each row's most specific condition: more parts before fewer, longer texts, fewer rows."""
    found: dict[int, Condition] = {}
    for condition in sorted(
        conditions,
        key=lambda c: (c.num_parts, len(c.prefix) + len(c.suffix), -len(c.rows), c.key),
    ):
        found.update(dict.fromkeys(condition.rows, condition))
    return found
