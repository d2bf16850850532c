"""How strongly a feature fires in base and tuned, as bars side by side."""

import math

from ft_audit.agent.report.markup import Child, Markup, join, tag
from ft_audit.agent.report.numbers import fixed, places_for
from ft_audit.agent.report.parts import key, legend
from ft_audit.agent.report.plots import Axis, scale_line, svg
from ft_audit.agent.views import Histogram

HEIGHT = 110
HEAD = 6  # free above the largest bar


def activation_plot(found: Histogram) -> Markup:
    """Tokens by activation; heights are logarithmic, since most of what fires fires weakly."""
    axis = Axis(0.0, found.edges[-1])
    most = max(*found.base, *found.tuned)
    parts: list[Child] = [_line(count, most) for count in _powers(most)]
    places = places_for(found.edges)
    for number, counts in enumerate(zip(found.base, found.tuned, strict=True)):
        low, high = found.edges[number : number + 2]
        title = f"{fixed(low, places)} to {fixed(high, places)}: base {counts[0]:,}, tuned {counts[1]:,}"
        wide = (axis.at(high) - axis.at(low)) * 0.45
        for side, (name, count) in enumerate(zip(("base", "tuned"), counts, strict=True)):
            if count:
                x = axis.at(low) + side * wide
                parts.append(_bar(x, wide, _height(count, most), name, title))
    label = f"activations on {found.suite}: base on {sum(found.base):,} tokens, tuned on {sum(found.tuned):,}"
    keys = legend(
        key("line base", f"base, {sum(found.base):,} tokens"),
        key("line tuned", f"tuned, {sum(found.tuned):,}"),
        tag("span", "on a logarithmic scale", class_="key"),
    )
    return join([keys, svg(parts, HEIGHT, label), scale_line(axis)])


def _bar(x: float, wide: float, height: float, kind: str, title: str) -> Markup:
    return tag(
        "rect",
        tag("title", title),
        x=f"{x:.2f}%",
        width=f"{wide:.2f}%",
        y=round(HEIGHT - height, 1),
        height=round(height, 1),
        class_=f"bar {kind}",
    )


def _line(count: int, most: int) -> Markup:
    y = round(HEIGHT - _height(count, most), 1)
    line = tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
    return join([line, tag("text", f"{count:,}", x="100%", y=y - 2, text_anchor="end", class_="tick-label")])


def _height(count: int, most: int) -> float:
    # One token is a bar that can be seen, and twice as high on this scale as none would be.
    return (HEIGHT - HEAD) * math.log1p(count) / math.log1p(most)


def _powers(most: int) -> list[int]:
    return [10**power for power in range(int(math.log10(most)) + 1)] if most else []
