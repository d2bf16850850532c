"""The leading features, each with the tokens around its peaks in base and tuned."""

import math

from ft_audit.agent.report.markup import Child, Markup, join, tag, untrusted
from ft_audit.agent.report.numbers import fixed, plural, probability, share, short, signed
from ft_audit.agent.report.parts import folded, key, legend, plot_row, section
from ft_audit.agent.report.plots import Axis, axis_over, scale_line, span, svg
from ft_audit.agent.report.source import Source
from ft_audit.agent.views import Context, Feature

OPEN_FEATURES = 4
CONTEXTS_A_SIDE = 3
TOKEN_CHARACTERS = 40
SHADES = 5


def features(source: Source) -> Markup:
    """Effect sizes of the leading features, and where the first of them fire."""
    title = "Leading features"
    leading = source.evidence.leading(source.top)
    if not leading:
        return section("features", title, "No feature changed beyond the noise of running the base twice.")
    cards = [_card(source, feature) for feature in leading]
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
    link = tag("a", str(feature.feature), href=f"#{_anchor(feature)}")
    name = join([link, " ", tag("span", _where(source, feature), class_="soft")])
    return plot_row(name, plot, fixed(feature.effect, 2, sign=True))


def _where(source: Source, feature: Feature) -> str:
    return f"{feature.suite} · {feature.sae}" if source.evidence.has_several_places else feature.suite


def _card(source: Source, feature: Feature) -> Markup:
    contexts = source.evidence.contexts(feature)
    largest = max((context.peak for context in contexts), default=0.0)
    sides = [_side(side, [c for c in contexts if c.side == side], largest) for side in ("base", "tuned")]
    facts = (
        ("fires on", f"{share(feature.rate_base)} → {share(feature.rate_tuned)} of tokens"),
        ("mean activation", f"{signed(feature.mean_diff)} a token"),
        ("q", probability(feature.q_value)),
        ("noise floor", _noise(feature)),
    )
    head = tag(
        "header",
        tag("h4", f"Feature {feature.feature}"),
        tag("small", _where(source, feature)),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts)),
    )
    return tag("article", head, tag("div", *sides, class_="pair"), class_="feature", id=_anchor(feature))


def _noise(feature: Feature) -> str:
    if not math.isfinite(feature.noise_percentile):
        return "no control run"
    return "above all of it" if feature.noise_percentile >= 100 else f"above {feature.noise_percentile:.1f}%"


def _side(side: str, contexts: list[Context], largest: float) -> Markup:
    strongest = sorted(contexts, key=lambda context: -context.peak)[:CONTEXTS_A_SIDE]
    peak = f"peak {short(strongest[0].peak)}" if strongest else ""
    body: list[Child] = [_context(context, largest) for context in strongest]
    none = tag("p", "Does not fire here.", class_="note")
    return tag("div", tag("h5", side, tag("small", peak)), *(body or [none]), class_=f"contexts {side}")


def _context(context: Context, largest: float) -> Markup:
    peak = max(context.activations, default=0.0)
    tokens = [
        _token(token, activation, largest, activation == peak)
        for token, activation in zip(context.tokens, context.activations, strict=True)
    ]
    quoted = tag("span", *tokens, class_="quoted", dir="auto")
    return tag("blockquote", quoted, title=f"{context.suite}, prompt {context.prompt}")


def _token(token: str, activation: float, largest: float, is_peak: bool) -> Markup:
    text = untrusted(token, TOKEN_CHARACTERS)
    if activation <= 0 or largest <= 0:
        return text
    shade = max(1, min(SHADES, math.ceil(SHADES * activation / largest)))
    return tag("mark", text, class_=f"s{shade} peak" if is_peak else f"s{shade}", title=short(activation))


def _anchor(feature: Feature) -> str:
    name = f"{feature.sae}-{feature.feature}-{feature.suite}"
    return "feature-" + "".join(c if c.isalnum() else "-" for c in name)
