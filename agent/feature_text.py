"""One feature as plain text for a terminal: tests, label, activations, contexts, tokens, likes elsewhere."""

from ft_audit.agent.feature_view import FeatureView
from ft_audit.agent.label_words import label_words, trust_words
from ft_audit.agent.report.numbers import fixed, places_for, probability, share, short, signed
from ft_audit.agent.tables import table, titled
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.views import Context, Feature, Histogram, TokenPush

LABEL_CHARACTERS = 200
TOKEN_CHARACTERS = 40
BAR = 30
CONTEXTS_A_SIDE = 4
NUM_PUSHES = 8
NUM_NEIGHBORS = 5
# A token is marked from this share of its context's peak on, as in delphi's fuzzing.
MARKED = 0.3


def feature_text(view: FeatureView) -> str:
    """Everything known of one feature; what is not known is left out, but for the label."""
    shown = view.shown
    parts = [
        f"feature {shown.feature} of {shown.sae}\n{_label(view)}",
        _tests(view.tests),
        _histogram(view.histogram) if view.histogram else "",
        *(_contexts(view, side) for side in ("base", "tuned")),
        _pushes("tokens promoted", view.label.promoted),
        _pushes("tokens suppressed", view.label.suppressed),
        _neighbors(view),
        _matches(view),
    ]
    return "\n\n".join(part for part in parts if part)


def _label(view: FeatureView) -> str:
    best = view.label.best
    if best is None:
        return "label: none"
    return f"label: {reveal(best.text, LABEL_CHARACTERS)}\n       {label_words(best)}"


def _tests(tests: tuple[Feature, ...]) -> str:
    head = ("suite", "effect", "95% interval", "q", "fires base", "tuned")
    rows = [
        (
            test.suite,
            signed(test.effect),
            f"{signed(test.effect_low)} to {signed(test.effect_high)}",
            probability(test.q_value),
            share(test.rate_base),
            share(test.rate_tuned),
        )
        for test in tests
    ]
    return titled("tests over prompts", table(head, rows, numbers=(1, 3, 4, 5)))


def _histogram(found: Histogram) -> str:
    most = max(*found.base, *found.tuned)
    places = places_for(found.edges)
    rows = [
        (fixed(low, places), str(base), _bar(base, most), str(tuned), _bar(tuned, most))
        for low, base, tuned in zip(found.edges, found.base, found.tuned, strict=False)
    ]
    body = table(("from", "base", "", "tuned", ""), rows, numbers=(0, 1, 3))
    return titled(f"tokens of {found.suite} by activation", body)


def _bar(count: int, most: int) -> str:
    return "█" * max(round(BAR * count / most), 1 if count else 0)


def _contexts(view: FeatureView, side: str) -> str:
    own = sorted((c for c in view.contexts if c.side == side), key=lambda context: -context.peak)
    if not own:
        return f"Contexts in {side}: does not fire on {view.shown.suite}." if view.contexts else ""
    lines = [f"{short(context.peak):>8}  {_marked(context)}" for context in own[:CONTEXTS_A_SIDE]]
    return titled(f"contexts in {side}, on {view.shown.suite}", "\n".join(lines))


def _marked(context: Context) -> str:
    """The context with what fires between guillemets, as one run where neighbours do."""
    bar = MARKED * max(context.activations, default=0.0)
    text, inside = "", False
    for token, activation in zip(context.tokens, context.activations, strict=True):
        fires = activation > 0 and activation >= bar
        text += ("«" if fires else "»") if fires != inside else ""
        text += reveal(token, TOKEN_CHARACTERS)
        inside = fires
    return text + ("»" if inside else "")


def _pushes(title: str, pushes: tuple[TokenPush, ...]) -> str:
    said = [
        f"{reveal(push.token, TOKEN_CHARACTERS)} {fixed(push.effect, 2, sign=True)}"
        for push in pushes[:NUM_PUSHES]
    ]
    return titled(title, "   ".join(said)) if said else ""


def _neighbors(view: FeatureView) -> str:
    rows = [
        (
            str(near.feature),
            fixed(near.cosine, 2),
            trust_words(near),
            reveal(near.label.text, LABEL_CHARACTERS),
        )
        for near in view.label.neighbors[:NUM_NEIGHBORS]
    ]
    head = ("feature", "cosine", "trust", "label")
    return titled("nearest labelled features of the dictionary", table(head, rows, (0, 1))) if rows else ""


def _matches(view: FeatureView) -> str:
    rows = [
        (match.sae, str(match.feature), fixed(match.cosine, 2), "yes" if match.mutual else "no")
        for match in view.matches
    ]
    head = ("dictionary", "feature", "cosine", "mutual")
    return titled("nearest features of other dictionaries", table(head, rows, (1, 2))) if rows else ""
