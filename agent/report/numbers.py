"""Numbers as a reader wants them: few digits, a true minus, percentages where a share is meant."""

import math
from collections.abc import Iterable

MINUS = "−"
ABSENT = "–"


def short(value: float | None, digits: int = 3) -> str:
    """A number to a few significant digits: 0.00123, 12.3, 12,300; a dash when there is none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        shown = f"{abs(value):.{digits - 1}e}"
    elif size >= digits:
        shown = f"{abs(value):,.0f}"
    else:
        shown = f"{abs(value):.{digits - 1 - size}f}"
    return (MINUS if value < 0 else "") + shown


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign."""
    return ("+" if value is not None and value > 0 else "") + short(value, digits)


def places_for(values: Iterable[float | None], digits: int = 3) -> int:
    """The decimals that give the largest of a column's numbers `digits` significant digits."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    return 0 if largest == 0 else min(6, max(0, digits - 1 - math.floor(math.log10(largest))))


def fixed(value: float | None, places: int, *, sign: bool = False) -> str:
    """A number with as many decimals as the rest of its column."""
    if value is None or not math.isfinite(value):
        return ABSENT
    shown = f"{abs(value):,.{places}f}"
    nothing = float(shown.replace(",", "")) == 0
    return ("" if nothing else MINUS if value < 0 else "+" if sign else "") + shown


def share(value: float | None) -> str:
    """A share as a percentage: 12%, 1.2%, 0.03%."""
    if value is None or not math.isfinite(value):
        return ABSENT
    percent = 100 * value
    places = 0 if percent >= 10 or percent == 0 else 1 if percent >= 1 else 2
    return "<0.01%" if 0 < percent < 0.005 else f"{percent:.{places}f}%"


def probability(value: float | None) -> str:
    """A p or q value: 0.111, <0.001."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def capital(words: str) -> str:
    """The words with a capital at the front, the rest as they are."""
    return words[:1].upper() + words[1:]


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
