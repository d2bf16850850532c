"""How far two models' shares of answers lie apart, with intervals that are sensible at 0 and 1.

Each share has its Wilson interval; a sum or difference of independent shares joins them by squares, as
Newcombe (1998, method 10) does for two. The same prompts are asked of both models: where answers to one
prompt go together, the intervals are wider than they need be.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ft_audit.agent.labels.intervals import wilson


class Contrast(NamedTuple):
    """A difference and its 95 % interval."""

    value: float
    low: float
    high: float


def contrast(terms: Sequence[tuple[int, int, int]]) -> Contrast:
    """Return the sum of shares, each a sign (1 or -1), how many, and of how many, which is not 0."""
    value, below, above = 0.0, 0.0, 0.0
    for sign, count, total in terms:
        low, high = wilson(count, total)
        down, up = count / total - low, high - count / total
        value += sign * count / total
        below += (down if sign > 0 else up) ** 2
        above += (up if sign > 0 else down) ** 2
    limit = math.ceil(len(terms) / 2)
    return Contrast(value, max(-limit, value - math.sqrt(below)), min(limit, value + math.sqrt(above)))
