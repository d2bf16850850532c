"""One feature from all sides: its tests, where it fires in either model, its label, its likes elsewhere."""

import math
from dataclasses import dataclass

import numpy as np

from ft_audit.agent.dictionaries import matches
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.views import Context, Feature, FeatureLabel, Histogram, Match
from ft_audit.engine.store.feature_index_reader import SIDES
from ft_audit.errors import StoreError

NUM_BINS = 20
NUM_CONTEXTS = 8


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Everything a diff and its store hold of one feature."""

    tests: tuple[Feature, ...]  # one a suite
    shown: Feature  # the one whose suite the rest is of
    contexts: tuple[Context, ...]
    histogram: Histogram | None  # None where the diff holds no copy sorted by feature
    label: FeatureLabel
    matches: tuple[Match, ...]  # in the other dictionaries; of a leading feature


def view_feature(evidence: Evidence, sae: str, feature: int, suite: str | None = None) -> FeatureView:
    """Everything of one feature, on the suite named or else on the one where its effect is largest.

    Raises StoreError where there is no such dictionary, feature or suite.
    """
    tests = tuple(evidence.feature(sae, name, feature) for name in evidence.suites_of(sae))
    if not tests:
        evidence.sae_sha256(sae)  # an unknown dictionary says which ones there are
        raise StoreError(f"diff {evidence.diff_id} compared no features of {sae!r}")
    named = [test for test in tests if suite in (None, test.suite)]
    if not named:
        there = ", ".join(test.suite for test in tests)
        raise StoreError(f"diff {evidence.diff_id} compared {sae!r} on no suite {suite!r}, but on {there}")
    shown = max(named, key=lambda test: abs(test.effect) if math.isfinite(test.effect) else -1.0)
    return view_of(evidence, shown, tests)


def only_dictionary(evidence: Evidence) -> str:
    """The one dictionary of a diff; StoreError where there are several, or none."""
    names = [sae for hook in evidence.hooks for sae in hook.saes]
    if len(names) == 1:
        return names[0]
    there = f"several dictionaries, name one with --sae: {', '.join(names)}" if names else "no dictionary"
    raise StoreError(f"diff {evidence.diff_id} has {there}")


def view_of(evidence: Evidence, shown: Feature, tests: tuple[Feature, ...] = ()) -> FeatureView:
    """Everything of one feature on the suite of one of its tests."""
    return FeatureView(
        tests=tests or (shown,),
        shown=shown,
        contexts=tuple(evidence.contexts(shown) or _indexed_contexts(evidence, shown)),
        histogram=histogram(evidence, shown),
        label=evidence.label(shown.sae, shown.feature),
        matches=tuple(matches(evidence, shown.sae, shown.feature)),
    )


def histogram(evidence: Evidence, feature: Feature, num_bins: int = NUM_BINS) -> Histogram | None:
    """On how many counted tokens the feature fired how strongly, in bins of equal width from zero.

    None where the diff holds no copy sorted by feature, or the feature fired nowhere.
    """
    index = evidence.index
    if index is None or not index.holds(feature.sae, feature.suite):
        return None
    values = [index.tokens_of(feature.sae, feature.suite, side, feature.feature).value_N for side in SIDES]
    largest = max((float(value_N.max()) for value_N in values if len(value_N)), default=0.0)
    if not largest:
        return None
    edges = np.linspace(0.0, largest, num_bins + 1)
    base, tuned = (tuple(np.histogram(value_N, edges)[0].tolist()) for value_N in values)
    return Histogram(feature.suite, tuple(edges.tolist()), base, tuned)


def _indexed_contexts(evidence: Evidence, feature: Feature) -> list[Context]:
    """Where a feature that does not lead fires hardest; tokens by their ids where no vocabulary is stored."""
    index = evidence.index
    if index is None or not index.holds(feature.sae, feature.suite):
        return []
    found = []
    for side in SIDES:
        contexts = index.top_contexts(feature.sae, feature.suite, side, feature.feature, NUM_CONTEXTS)
        for rank, context in enumerate(contexts, start=1):
            tokens = evidence.words(context.tokens)
            found.append(
                Context(side, rank, feature.suite, context.prompt, context.peak, tokens, context.activations)
            )
    return found
