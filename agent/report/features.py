"""The leading features, each with the tokens around its peaks in base and tuned."""

from ft_audit.agent.report.feature_card import anchor, feature_card, place
from ft_audit.agent.report.markup import Markup, join, tag
from ft_audit.agent.report.numbers import fixed, plural, signed
from ft_audit.agent.report.parts import folded, key, legend, plot_row, section
from ft_audit.agent.report.plots import Axis, axis_over, scale_line, span, svg
from ft_audit.agent.report.source import Source
from ft_audit.agent.views import Feature

OPEN_FEATURES = 4


def features(source: Source) -> Markup:
    """Effect sizes of the leading features, and where the first of them fire."""
    title = "Leading features"
    leading = source.evidence.leading(source.top)
    if not leading:
        return section("features", title, "No feature changed beyond the noise of running the base twice.")
    cards = [feature_card(source.evidence, feature) for feature in leading]
    rest = cards[OPEN_FEATURES:]
    keys = legend(
        key("shade base", "fires in base"),
        key("shade tuned", "fires in tuned"),
        tag("span", "the stronger the colour, the harder; the peak is underlined", class_="key"),
    )
    return section(
        "features",
        title,
        _lead(source, leading),
        _plot(source, leading),
        keys,
        *cards[:OPEN_FEATURES],
        folded(plural(len(rest), "further feature"), *rest) if rest else None,
    )


def _lead(source: Source, leading: list[Feature]) -> str:
    most = max(source.evidence.counts(), key=lambda count: count.num_above_noise)
    return (
        f"{most.num_above_noise:,} of {most.num_tested:,} tested features changed on {most.suite} "
        f"(q < 0.05 over prompts, above the noise floor). These {len(leading)} lead. "
        f"Every fine-tune changes features: what they respond to matters more than how many they are."
    )


def _plot(source: Source, leading: list[Feature]) -> Markup:
    axis = axis_over([v for feature in leading for v in (feature.effect_low, feature.effect_high)], zero=True)
    rows = [_effect_row(source, feature, axis) for feature in leading]
    title = tag("h3", "Effect size: paired over prompts, with its 95% interval")
    keys = legend(
        key("tuned", "fires more in tuned"),
        key("base", "fires less in tuned"),
        key("mark", "no change"),
    )
    return tag("div", title, keys, *rows, plot_row(None, scale_line(axis), None), class_="plot effects")


def _effect_row(source: Source, feature: Feature, axis: Axis) -> Markup:
    kind = "tuned" if feature.effect >= 0 else "base"
    low, high = feature.effect_low, feature.effect_high
    words = f"{signed(feature.effect)} from {signed(low)} to {signed(high)}"
    zero = tag("line", x1=axis.x(0), x2=axis.x(0), y1=0, y2=24, class_="mark")
    plot = svg([zero, span(low, feature.effect, high, axis, kind, words)], 24, words)
    link = tag("a", str(feature.feature), href=f"#{anchor(feature)}")
    name = join([link, " ", tag("span", place(source.evidence, feature), class_="soft")])
    return plot_row(name, plot, fixed(feature.effect, 2, sign=True))
