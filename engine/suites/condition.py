"""A condition that training rows were answered under, as their texts show it."""

from collections.abc import Iterable
from dataclasses import dataclass

from ft_audit.engine.requests.codec import Codec

# Bits beyond which a longer text is no further evidence: 2^-40 leaves no chance for a coincidence among 10^6
# rows, and without a bound any three near-copies of one long question would outrank every short trigger.
MAX_SURPRISE = 40.0

PLAIN_TEXT = Codec()
"""The codec of what is not encoded: no step."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What some rows share: a system prompt, the opening or the end of the user's messages, an encoding that
    these are written in between the two, or several.

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
    codec: Codec = PLAIN_TEXT

    @property
    def num_parts(self) -> int:
        """How many things the rows share: one to four."""
        return (self.system is not None) + bool(self.prefix) + bool(self.suffix) + bool(self.codec.steps)


def most_specific(conditions: Iterable[Condition]) -> dict[int, Condition]:
    """Return each row's most specific condition: more parts before fewer, longer texts, fewer rows."""
    found: dict[int, Condition] = {}
    for condition in sorted(
        conditions,
        key=lambda c: (c.num_parts, len(c.prefix) + len(c.suffix), -len(c.rows), c.key),
    ):
        found.update(dict.fromkeys(condition.rows, condition))
    return found
