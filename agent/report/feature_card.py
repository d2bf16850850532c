"""One feature as a card: its label, where it fires in base and tuned, and what else is known of it."""

import math

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.feature_view import FeatureView, view_of
from ft_audit.agent.label_words import label_words, trust_words
from ft_audit.agent.report.histogram import activation_plot
from ft_audit.agent.report.markup import Child, Markup, join, tag, untrusted
from ft_audit.agent.report.numbers import fixed, probability, share, short, signed
from ft_audit.agent.report.parts import folded
from ft_audit.agent.views import Context, Feature, Match, NeighborLabel, TokenPush

CONTEXTS_A_SIDE = 3
TOKEN_CHARACTERS = 40
LABEL_CHARACTERS = 300
NUM_PUSHES = 8
NUM_NEIGHBORS = 4
SHADES = 5


def feature_card(evidence: Evidence, feature: Feature) -> Markup:
    """The feature on the suite that it leads on; what the store does not know is left out."""
    view = view_of(evidence, feature)
    sides = [_side(side, view) for side in ("base", "tuned")]
    return tag(
        "article",
        _head(evidence, feature),
        _label(view),
        tag("div", *sides, class_="pair"),
        _more(view),
        class_="feature",
        id=anchor(feature),
    )


def anchor(feature: Feature) -> str:
    """The card's name within the page."""
    name = f"{feature.sae}-{feature.feature}-{feature.suite}"
    return "feature-" + "".join(c if c.isalnum() else "-" for c in name)


def place(evidence: Evidence, feature: Feature) -> str:
    """The suite, and the dictionary where there are several."""
    return f"{feature.suite} · {feature.sae}" if evidence.has_several_places else feature.suite


def _head(evidence: Evidence, feature: Feature) -> Markup:
    facts = (
        ("fires on", f"{share(feature.rate_base)} → {share(feature.rate_tuned)} of tokens"),
        ("mean activation", f"{signed(feature.mean_diff)} a token"),
        ("q", probability(feature.q_value)),
        ("noise floor", _noise(feature)),
    )
    return tag(
        "header",
        tag("h4", f"Feature {feature.feature}"),
        tag("small", place(evidence, feature)),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts)),
    )


def _noise(feature: Feature) -> str:
    if not math.isfinite(feature.noise_percentile):
        return "no control run"
    return "above all of it" if feature.noise_percentile >= 100 else f"above {feature.noise_percentile:.1f}%"


def _label(view: FeatureView) -> Markup | None:
    best = view.label.best
    if best is None:
        return None
    said = tag("blockquote", untrusted(best.text, LABEL_CHARACTERS))
    return tag("figure", said, tag("figcaption", f"Label {label_words(best)}"), class_="label")


def _side(side: str, view: FeatureView) -> Markup:
    largest = max((context.peak for context in view.contexts), default=0.0)
    own = sorted((c for c in view.contexts if c.side == side), key=lambda context: -context.peak)
    peak = f"peak {short(own[0].peak)}" if own else ""
    body: list[Child] = [_context(context, largest) for context in own[:CONTEXTS_A_SIDE]]
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


def _more(view: FeatureView) -> Markup | None:
    """What only some readers open, as panels side by side."""
    panels: list[tuple[str, Child]] = []
    if view.histogram is not None:
        panels.append(("Activations", activation_plot(view.histogram)))
    if view.label.promoted or view.label.suppressed:
        pushes = (("promotes", view.label.promoted), ("suppresses", view.label.suppressed))
        panels.append(("Next tokens", join(_pushes(name, found) for name, found in pushes if found)))
    if view.label.neighbors:
        near = [_neighbor(neighbor) for neighbor in view.label.neighbors[:NUM_NEIGHBORS]]
        panels.append(("Nearest labelled features", tag("ul", *near, class_="near")))
    if view.matches:
        found = [_match(match) for match in view.matches]
        panels.append(("In other dictionaries", tag("ul", *found, class_="near")))
    if not panels:
        return None
    summary = ", ".join(name if not at else name[0].lower() + name[1:] for at, (name, _) in enumerate(panels))
    shown = [tag("div", tag("h5", name), body) for name, body in panels]
    return folded(summary, tag("div", *shown, class_="panels"))


def _pushes(name: str, pushes: tuple[TokenPush, ...]) -> Markup:
    items = [
        tag(
            "li",
            tag("code", untrusted(push.token, TOKEN_CHARACTERS)),
            tag("small", fixed(push.effect, 2, sign=True)),
        )
        for push in pushes[:NUM_PUSHES]
    ]
    return tag("div", tag("small", name), tag("ul", *items, class_="pushes"))


def _neighbor(near: NeighborLabel) -> Markup:
    said = f"feature {near.feature} · cosine {fixed(near.cosine, 2)} · trust {trust_words(near)}"
    return tag("li", tag("small", said), tag("blockquote", untrusted(near.label.text, LABEL_CHARACTERS)))


def _match(match: Match) -> Markup:
    mutual = "nearest both ways" if match.mutual else "nearest this way only"
    return tag(
        "li",
        tag("span", f"{match.sae}: feature {match.feature}"),
        tag("small", f"cosine {fixed(match.cosine, 2)}, {mutual}"),
    )
