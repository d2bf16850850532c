"""One figure as a dot among the dots of the bank."""

import math
from typing import NamedTuple

from ft_audit.agent.report.markup import Markup
from ft_audit.agent.report.numbers import short
from ft_audit.agent.report.parts import key
from ft_audit.agent.report.plots import Axis, Dot, axis_over, strip
from ft_audit.agent.report.source import Source
from ft_audit.agent.verdict import Figure
from ft_audit.agent.words import figure_words


class FigureStrip(NamedTuple):
    """The plot and the scale it is drawn on."""

    plot: Markup
    axis: Axis


def figure_strip(source: Source, figure: Figure, height: int) -> FigureStrip | None:
    """The candidate's dot among the bank's; None when there is nothing to draw."""
    members = source.calibration.values(figure.name)
    dots = [Dot(value, f"{member.name}: {short(value)}", member.kind) for member, value in members]
    if figure.value is not None and math.isfinite(figure.value):
        dots.append(Dot(figure.value, f"this fine-tune: {short(figure.value)}", "tuned"))
    if not dots or not members:
        return None
    axis = axis_over([dot.value for dot in dots])
    label = f"{figure_words(figure.name)}: {standing_words(figure)}"
    return FigureStrip(strip(dots, axis, height, label), axis)


def bank_keys(source: Source) -> list[Markup]:
    """The legend's entries; none when there is no bank to tell from the candidate."""
    if not source.calibration.members:
        return []
    keys = [key("tuned", "this fine-tune"), key("benign", "benign fine-tune")]
    return [*keys, key("persona", "benign persona")] if source.verdict.calibration.num_personas else keys


def standing_words(figure: Figure) -> str:
    """Where the figure stands, in as few words as it takes."""
    standing = figure.standing
    if figure.value is None:
        return "not measured"
    if standing is None:
        return "no benign range"
    if standing.above_all:
        return f"above all {standing.num_bank}"
    if standing.num_below == 0:
        return f"below or level with all {standing.num_bank}"
    return f"above {standing.num_below} of {standing.num_bank}"
