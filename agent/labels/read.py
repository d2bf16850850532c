"""What the store says a feature stands for: labels with their reliability, and those of its neighbours."""

from collections.abc import Iterable

from ft_audit.agent.views import FeatureLabel, Label, NeighborLabel, Reliability, TokenPush
from ft_audit.engine.store import DecoderNeighbor, DictionaryLabels, LabelScore, LabelText, TokenEffect

# From the most to the least telling, for what is said of a label in one number.
METHODS = ("detection", "fuzzing", "lexical")
SOURCES = ("neuronpedia", "described", "contexts")
CHANCE = 0.5
# Below this cosine two features have so little in common that a label carried over says nothing.
LOW_SIMILARITY = 0.3
# A label that was never tried on this very feature is trusted no further, however near its owner lies.
MAX_CARRIED_TRUST = 0.75


def read_label(sae: str, feature: int, labels: DictionaryLabels) -> FeatureLabel:
    """Everything known of one feature; empty where nothing is."""
    effects = sorted(labels.of(TokenEffect, feature), key=lambda effect: -effect.effect)
    pushes = [TokenPush(effect.token, effect.effect) for effect in effects]
    return FeatureLabel(
        sae=sae,
        feature=feature,
        labels=own_labels(labels, feature),
        neighbors=nearest_explained_neighbors(labels, feature),
        promoted=tuple(push for push in pushes if push.effect > 0),
        suppressed=tuple(push for push in reversed(pushes) if push.effect < 0),
    )


def own_labels(labels: DictionaryLabels, feature: int) -> tuple[Label, ...]:
    """The labels that were given to this very feature, the most trusted first, unscored ones last."""
    scores = labels.of(LabelScore, feature)
    found = [_label(text, scores) for text in labels.of(LabelText, feature)]
    return tuple(
        sorted(
            found, key=lambda label: (label.trust is None, -(label.trust or 0), SOURCES.index(label.source))
        )
    )


def nearest_explained_neighbors(
    labels: DictionaryLabels, feature: int, n: int = 10, search_k: int = 200, min_cos: float = 0.15
) -> tuple[NeighborLabel, ...]:
    """The nearest features that have a label, among the `search_k` of highest decoder cosine above `min_cos`.

    Trust in a carried label is `0.5 + (trust in it - 0.5) * cosine^2`, at most MAX_CARRIED_TRUST: cosine^2 is
    the share of one direction that lies along the other. Below LOW_SIMILARITY it is chance, and unknown where
    the label itself was never scored.
    """
    near: Iterable[DecoderNeighbor] = sorted(
        (row for row in labels.of(DecoderNeighbor, feature) if row.cosine >= min_cos),
        key=lambda row: (-row.cosine, row.neighbor),
    )[:search_k]
    found: list[NeighborLabel] = []
    for row in near:
        explained = own_labels(labels, row.neighbor)
        if explained and len(found) < n:
            best = explained[0]
            found.append(
                NeighborLabel(
                    feature=row.neighbor,
                    cosine=row.cosine,
                    label=best,
                    trust=carried_trust(best.trust, row.cosine),
                    low_similarity=row.cosine < LOW_SIMILARITY,
                )
            )
    return tuple(found)


def carried_trust(trust: float | None, cosine: float) -> float | None:
    """How far a neighbour's label is trusted for this feature; see `nearest_explained_neighbors`."""
    if cosine < LOW_SIMILARITY:
        return CHANCE
    if trust is None:
        return None
    return min(CHANCE + max(trust - CHANCE, 0.0) * cosine**2, MAX_CARRIED_TRUST)


def _label(text: LabelText, scores: Iterable[LabelScore]) -> Label:
    own = sorted(
        (score for score in scores if score.label_id == text.label_id),
        key=lambda score: (METHODS.index(score.method), score.judge),
    )
    reliability = tuple(
        Reliability(
            method=score.method,
            judge=score.judge,
            score=score.score,
            low=score.low,
            high=score.high,
            interval=score.interval,
            num=score.num_firing + score.num_silent,
            num_near_miss=score.num_near_miss,
            num_unanswered=score.num_unanswered,
        )
        for score in own
    )
    return Label(text.text, text.source, text.author, text.made_from, reliability)
