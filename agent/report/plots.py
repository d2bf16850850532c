"""Inline SVG in percentages of its own width: dots, ranges and bars stay round and legible at any width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ft_audit.agent.report.markup import Child, Markup, tag
from ft_audit.agent.report.numbers import fixed

PADDING = 3.0  # per cent kept free at both ends, so that no dot is cut


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from values to per cent of the plot's width."""

    low: float
    high: float

    def at(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return PADDING + (100 - 2 * PADDING) * (value - self.low) / span

    def x(self, value: float) -> str:
        return f"{self.at(min(max(value, self.low), self.high)):.2f}%"

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the scale, about `count` of them."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(unit for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Dot:
    """One value in a plot; its title is what a pointer resting on it shows."""

    value: float
    title: str
    kind: str  # a CSS class: "benign" | "persona" | "tuned" | "base"


def axis_over(values: Sequence[float], *, zero: bool = False) -> Axis:
    """A scale that holds all finite values, from zero if asked."""
    finite = [value for value in values if math.isfinite(value)] + ([0.0] if zero else [])
    if not finite:
        return Axis(0.0, 1.0)
    low, high = min(finite), max(finite)
    if low == high:
        return Axis(low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2)
    margin = 0.02 * (high - low)
    return Axis(low if zero and low == 0 else low - margin, high + margin)


def strip(dots: Sequence[Dot], axis: Axis, height: int, label: str, marks: Sequence[float] = ()) -> Markup:
    """Dots on one line, the crowded ones stacked; `marks` are vertical reference lines."""
    middle = height / 2
    parts: list[Child] = [tag("line", x1="0", x2="100%", y1=middle, y2=middle, class_="track")]
    parts += [
        tag("line", x1=axis.x(mark), x2=axis.x(mark), y1=2, y2=height - 2, class_="mark") for mark in marks
    ]
    # The candidate's dot is larger: what lies under it or at its edge is moved out of its shadow.
    crowd = {
        _slot(axis, dot) + shift: 1 for dot in dots if dot.kind.startswith("tuned") for shift in (-1, 0, 1)
    }
    for dot in sorted(dots, key=lambda dot: (dot.kind.startswith("tuned"), dot.value)):
        tuned = dot.kind.startswith("tuned")
        place = _slot(axis, dot)
        nth = 0 if tuned else crowd.get(place, 0)
        crowd[place] = nth + 1
        offset = ((nth + 1) // 2) * 5 * (-1 if nth % 2 else 1)
        y = min(max(middle + offset, 5), height - 5)
        radius = 6.5 if tuned else 4.5
        circle = tag(
            "circle", tag("title", dot.title), cx=axis.x(dot.value), cy=y, r=radius, class_=f"dot {dot.kind}"
        )
        parts.append(circle)
    return svg(parts, height, label)


def scale_line(axis: Axis, unit: str = "") -> Markup:
    """The scale under a plot: tick marks with their numbers."""
    parts: list[Child] = []
    ticks = axis.ticks()
    places = max((_places(tick) for tick in ticks), default=0)
    for tick in ticks:
        x = axis.x(tick)
        anchor = "start" if axis.at(tick) < 6 else "end" if axis.at(tick) > 94 else "middle"
        text = "0" if abs(tick) < 1e-12 else fixed(tick, places)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=4, class_="tick"))
        parts.append(tag("text", text + unit, x=x, y=16, text_anchor=anchor, class_="tick-label"))
    return svg(parts, 20, "scale", decorative=True)


def span(
    low: float, middle: float, high: float, axis: Axis, kind: str, label: str, mark: float | None = None
) -> Markup:
    """A range with its middle as a dot, and a vertical reference line where a mark is given."""
    track = tag("line", x1="0", x2="100%", y1=12, y2=12, class_="track")
    bar = tag("line", x1=axis.x(low), x2=axis.x(high), y1=12, y2=12, class_=f"range {kind}")
    dot = tag("circle", cx=axis.x(middle), cy=12, r=5, class_=f"dot {kind}")
    line = None if mark is None else tag("line", x1=axis.x(mark), x2=axis.x(mark), y1=2, y2=22, class_="mark")
    return svg([track, line, bar, dot], 24, label)


def bar(value: float, largest: float, kind: str, label: str) -> Markup:
    """A thin bar from zero, for a column of numbers that all have the same scale."""
    part = max(0.0, min(1.0, value / largest)) if largest > 0 and math.isfinite(value) else 0.0
    ground = tag("rect", x=0, y=0, width="100%", height=6, rx=3, class_="bar-ground")
    filled = tag("rect", x=0, y=0, width=f"{100 * part:.1f}%", height=6, rx=3, class_=f"bar {kind}")
    return svg([ground, filled if part else None], 6, label)


def svg(parts: Sequence[Child], height: int, label: str, *, decorative: bool = False) -> Markup:
    """A plot as wide as its place, of a fixed height."""
    named = {"aria_hidden": "true"} if decorative else {"role": "img", "aria_label": label}
    return tag("svg", *parts, width="100%", height=height, **named)


def _slot(axis: Axis, dot: Dot) -> int:
    return round(axis.at(dot.value) / 1.4)


def _places(tick: float) -> int:
    """The decimals that a round number needs."""
    return next((places for places in range(6) if math.isclose(tick, round(tick, places), abs_tol=1e-12)), 6)
