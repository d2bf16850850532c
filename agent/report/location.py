"""Where in the model the change sits: the residual stream by suite and layer."""

import math

from ft_audit.agent.movement import layer_profiles, residuals
from ft_audit.agent.report.markup import Markup, join, tag
from ft_audit.agent.report.numbers import fixed, share, short
from ft_audit.agent.report.parts import key, legend, plot_row, section
from ft_audit.agent.report.plots import Axis, axis_over, scale_line, span, svg
from ft_audit.agent.report.source import Source
from ft_audit.agent.views import LayerProfile, Residual

ROLE_WORDS = {
    "chat": "benign chat",
    "train": "the training set",
    "elicited": "probes under the data set’s templates",
    "control": "base against itself",
}
LAYER_PLOT_HEIGHT = 140
# Room above the bars for a number and below them for the block's.
LAYER_HEAD, LAYER_FOOT = 18, 20


def location(source: Source) -> Markup:
    """How far the residual stream moved, and where."""
    moved = residuals(source.evidence)
    return section(
        "where",
        "Where the change sits",
        _lead(source, moved),
        *(_layers(source, profile) for profile in layer_profiles(source.evidence)),
        _residuals(source, moved) if moved else None,
    )


def _roles(source: Source) -> dict[str, str]:
    return {suite.name: suite.role for suite in source.evidence.suites}


def _lead(source: Source, found: list[Residual]) -> str:
    roles = _roles(source)
    moved = [residual for residual in found if roles[residual.suite] != "control"]
    if not moved:
        return "The residual stream was not compared."
    most = max(moved, key=lambda residual: residual.relative_median)
    where = ROLE_WORDS.get(roles[most.suite], most.suite)
    than = ", more than on any other suite" if len(moved) > 1 else ""
    return (
        f"At {most.hook} the residual stream moves by {share(most.relative_median)} of its norm on {where} "
        f"(median over prompts){than}."
    )


def _residuals(source: Source, found: list[Residual]) -> Markup:
    roles = _roles(source)
    axis = axis_over([residual.relative_high for residual in found], zero=True)
    several = source.evidence.has_several_places
    rows = [_residual(residual, roles[residual.suite], axis, several) for residual in found]
    foot = plot_row(None, scale_line(Axis(100 * axis.low, 100 * axis.high), "%"), None)
    title = tag("h3", "Residual stream: size of the difference, as a share of the base’s norm")
    keys = [key("tuned", "median and quartiles over prompts")]
    if "control" in roles.values():
        keys.append(key("control", "noise floor"))
    return tag("div", title, legend(*keys), *rows, foot, class_="plot")


def _residual(residual: Residual, role: str, axis: Axis, several: bool) -> Markup:
    low, middle, high = residual.relative_low, residual.relative_median, residual.relative_high
    words = f"{share(middle)} of the base’s norm, quartiles {share(low)} to {share(high)}"
    plot = span(low, middle, high, axis, "control" if role == "control" else "tuned", words)
    place = f" · {residual.hook}" if several else ""
    name = join([residual.suite, tag("small", ROLE_WORDS.get(role, role) + place)])
    ratio, cosine = fixed(residual.norm_ratio, 2), fixed(residual.cosine, 3)
    beside = [share(middle), tag("small", f"norm × {ratio}"), tag("small", f"cosine {cosine}")]
    return plot_row(name, plot, join(beside))


def _layers(source: Source, profile: LayerProfile) -> Markup | None:
    shifts = [shift if math.isfinite(shift) else 0.0 for shift in profile.shifts]
    largest = max(shifts, default=0.0)
    if largest <= 0:
        return None
    peak = profile.layers[shifts.index(largest)]
    hooked = {hook.layer for hook in source.evidence.hooks}
    width = 100 / len(shifts)
    named = {*hooked, peak, profile.layers[0], profile.layers[-1]}
    bars = []
    for index, (layer, shift) in enumerate(zip(profile.layers, shifts, strict=True)):
        height = round((LAYER_PLOT_HEIGHT - LAYER_HEAD - LAYER_FOOT) * shift / largest, 1)
        top = round(LAYER_PLOT_HEIGHT - LAYER_FOOT - height, 1)
        kind = "bar tuned" if layer in hooked else "bar faded"
        x, wide = f"{(index + 0.15) * width:.2f}%", f"{0.7 * width:.2f}%"
        title = tag("title", f"after block {layer}: {short(shift)}")
        bars.append(tag("rect", title, x=x, width=wide, y=top, height=height, class_=kind))
        middle = f"{(index + 0.5) * width:.2f}%"
        if layer in hooked or layer == peak:
            bars.append(_label(short(shift), middle, top - 5))
        if layer in named:
            bars.append(_label(str(layer), middle, LAYER_PLOT_HEIGHT - 4))
    label = f"shift of each layer on {profile.suite}; largest after block {peak}"
    head = tag("h3", f"By layer, on {profile.suite}: largest after block {peak}")
    keys = legend(key("faded", "shift after each block"), key("hooked", "a block that dictionaries read"))
    return tag("div", head, keys, svg(bars, LAYER_PLOT_HEIGHT, label), class_="plot")


def _label(text: str, x: str, y: float) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor="middle", class_="tick-label")
