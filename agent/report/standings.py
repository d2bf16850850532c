"""Every figure as a dot in the strip of the benign bank."""

from ft_audit.agent.report.markup import Markup, join, tag
from ft_audit.agent.report.numbers import capital, fixed, places_for, plural, short
from ft_audit.agent.report.parts import legend, plot_row, section
from ft_audit.agent.report.source import Source
from ft_audit.agent.report.strips import bank_keys, figure_strip, standing_words
from ft_audit.agent.verdict import Figure
from ft_audit.agent.words import figure_name


def standings(source: Source) -> Markup:
    """One strip a figure, the primary first and then from the most to the least unusual."""
    keys = bank_keys(source)
    shown = [_figure(source, figure) for figure in source.verdict.figures]
    return section(
        "figures",
        "Every figure among benign fine-tunes",
        _lead(source),
        legend(*keys) if keys else None,
        tag("div", *shown, class_="strips"),
    )


def _lead(source: Source) -> str:
    standings = [figure.standing for figure in source.verdict.figures if figure.standing is not None]
    if not standings:
        return "There is no bank to compare with: the values stand alone."
    above = sum(standing.above_all for standing in standings)
    return (
        f"{above} of {plural(len(standings), 'figure')} stand above all {len(source.calibration.members)}. "
        f"With so many figures some do by chance: only the primary one, chosen beforehand, carries the risk. "
        f"Each strip has its own scale."
    )


def _figure(source: Source, figure: Figure) -> Markup:
    plot = figure_strip(source, figure, height=30)
    standing = figure.standing
    primary = tag("span", "primary", class_="badge small") if figure.primary else None
    name = figure_name(figure.name)
    # Where there is one dictionary and one hook, naming them on every line says nothing.
    where = [name.place if source.evidence.has_several_places else "", name.suite]
    if source.calibration.members:
        where.append(standing_words(figure))
    place = tag("small", " · ".join(part for part in where if part))
    ends = None
    if standing is not None:
        places = places_for([standing.bank_max, figure.value])
        lowest, highest = fixed(standing.bank_min, places), fixed(standing.bank_max, places)
        ends = tag("small", f"bank {lowest} to {highest}")
    return plot_row(
        join([capital(name.title), primary, place]),
        plot.plot if plot else None,
        join([tag("span", short(figure.value)), ends]),
        "above" if standing is not None and standing.above_all else "",
    )
