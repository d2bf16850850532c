"""What features did in both models, suite by suite: the most active ones, and those that changed."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import Feature, Label, features_group
from ft_audit.engine.store.feature_index_reader import SIDES

SaeName = Annotated[
    str | None, Field(description="A dictionary's name; null where there is only one.", max_length=200)
]
SuiteName = Annotated[str, Field(description="A suite's name, as health lists them.", max_length=100)]
FeatureIndex = Annotated[int, Field(ge=0, description="The feature's number in its dictionary.")]


class ActiveFeature(Answer):
    feature: int = Field(description="Its number.")
    mean_activation: float = Field(description="Summed activation a token of the suite.")
    rate: float = Field(description="Share of tokens on which it fires.")
    label: Untrusted | None = Field(description="What somebody says it stands for; a hypothesis.")
    label_reliability: float | None = Field(
        description="How well the label told its contexts from others: 0.5 is chance; null if never tried."
    )


class TopFeatures(Answer):
    sae: str
    suite: str
    side: Literal["base", "tuned"]
    features: list[ActiveFeature] = Field(description="The most active first.")


class TopOverlap(Answer):
    sae: str
    suite: str
    k: int = Field(description="How many of each side were compared.")
    jaccard: float = Field(description="Shared features over all in either list.")
    base_only: list[int] = Field(description="Among the most active in the base alone.")
    tuned_only: list[int] = Field(description="Among the most active in the tuned model alone.")


class ChangedFeature(Answer):
    sae: str = Field(description="The dictionary.")
    feature: int = Field(description="Its number.")
    suite: str = Field(description="Where it was tested.")
    mean_diff: float | None = Field(description="Tuned less base: the mean over prompts of mean activations.")
    effect: float | None = Field(description="That over its standard deviation across prompts.")
    effect_low: float | None = Field(description="Of its 95 % interval.")
    effect_high: float | None = Field(description="Of its 95 % interval.")
    q_value: float | None = Field(description="Benjamini-Hochberg over all features of the suite.")
    noise_percentile: float | None = Field(
        description="Where it stands among differences of the base run twice, 0-100; null without that run."
    )
    rate_base: float | None = Field(description="Share of tokens on which it fires in the base.")
    rate_tuned: float | None = Field(description="And in the tuned model.")
    label: Untrusted | None = Field(description="What somebody says it stands for; a hypothesis.")
    label_reliability: float | None = Field(description="0.5 is chance; null if never tried.")


class ChangedFeatures(Page):
    num_tested: int = Field(description="Features tested, over all dictionaries and suites asked about.")
    num_significant: int = Field(description="Of these, q below 0.05.")
    num_above_noise: int = Field(description="And above the noise of the base run twice.")
    features: list[ChangedFeature]


@tool("internals")
def get_top_features(
    auditor: Auditor,
    suite: SuiteName,
    side: Literal["base", "tuned"] = "tuned",
    sae: SaeName = None,
    limit: Limit = 20,
) -> TopFeatures:
    """List the features that are most active on a suite in one of the models. Most are so in both:
    differential_feature_analysis says what changed."""
    name, group = group_of(auditor.evidence, sae, suite)
    return TopFeatures(
        sae=name,
        suite=suite,
        side=side,
        features=[
            _active(auditor.evidence, name, suite, side, f) for f in _most_active(auditor, group, side, limit)
        ],
    )


@tool("internals")
def compare_top_features(
    auditor: Auditor, suite: SuiteName, sae: SaeName = None, k: Limit = 20
) -> TopOverlap:
    """Compare the lists of the most active features of base and tuned on a suite."""
    name, group = group_of(auditor.evidence, sae, suite)
    base, tuned = (_most_active(auditor, group, side, k) for side in SIDES)
    either = set(base) | set(tuned)
    return TopOverlap(
        sae=name,
        suite=suite,
        k=k,
        jaccard=len(set(base) & set(tuned)) / max(len(either), 1),
        base_only=[f for f in base if f not in tuned],
        tuned_only=[f for f in tuned if f not in base],
    )


@tool("internals")
def differential_feature_analysis(
    auditor: Auditor,
    suite: Annotated[
        str | None, Field(description="Only on this suite; null ranks over all.", max_length=100)
    ] = None,
    sae: SaeName = None,
    direction: Literal["either", "rose", "fell"] = "either",
    offset: Offset = 0,
    limit: Limit = 10,
) -> ChangedFeatures:
    """List the features that differ between base and tuned beyond the noise floor, the largest effect first.

    Every fine-tune changes features: a change is evidence only with where it happens and what drives it.
    """
    evidence = auditor.evidence
    counts = [
        c for c in evidence.counts() if (suite is None or c.suite == suite) and (sae is None or c.sae == sae)
    ]
    if not counts:
        group_of(evidence, sae, suite or "")
    places = sorted((c.sae, c.suite) for c in counts)
    parts = [_changed(evidence, *place, direction) for place in places]
    place_N = np.repeat(np.arange(len(places)), [len(feature_F) for feature_F, _ in parts])
    feature_N, effect_N = (np.concatenate([part[i] for part in parts]) for i in range(2))
    order = np.argsort(-np.abs(effect_N), kind="stable")
    shown = [(*places[place_N[i]], int(feature_N[i])) for i in order[offset : offset + limit]]
    return ChangedFeatures(
        total=len(order),
        next_offset=next_offset(len(order), offset, len(shown)),
        num_tested=sum(c.num_tested for c in counts),
        num_significant=sum(c.num_significant for c in counts),
        num_above_noise=sum(c.num_above_noise for c in counts),
        features=[changed_feature(evidence, evidence.feature(*one)) for one in shown],
    )


def dictionary_of(evidence: Evidence, sae: str | None) -> str:
    """Return the dictionary that is meant.

    Raises:
        ToolError: it is not clear which.
    """
    names = [name for hook in evidence.hooks for name in hook.saes]
    if sae is None and len(names) == 1:
        return names[0]
    if sae not in names:
        raise ToolError(f"name a dictionary of this audit: {', '.join(names) or 'it has none'}")
    return sae


def group_of(evidence: Evidence, sae: str | None, suite: str) -> tuple[str, str]:
    """Return the dictionary's name and its group of statistics on a suite.

    Raises:
        ToolError: it is not clear which dictionary, or it was not compared on the suite.
    """
    name = dictionary_of(evidence, sae)
    if suite not in evidence.suites_of(name):
        raise ToolError(f"{name!r} was not compared on {suite!r}; on: {', '.join(evidence.suites_of(name))}")
    return name, features_group(name, suite)


def changed_feature(evidence: Evidence, feature: Feature) -> ChangedFeature:
    """Return the test of a feature on a suite as it is shown, with its best label."""
    best = evidence.label(feature.sae, feature.feature).best
    numbers = ("mean_diff", "effect", "effect_low", "effect_high", "q_value", "noise_percentile")
    return ChangedFeature(
        sae=feature.sae,
        feature=feature.feature,
        suite=feature.suite,
        **{name: finite(getattr(feature, name)) for name in (*numbers, "rate_base", "rate_tuned")},
        label=None if best is None else Untrusted(best.text),
        label_reliability=None if best is None else reliability(best),
    )


def reliability(label: Label) -> float | None:
    """Return how well a label told its contexts from others by the first score; None if never tried."""
    return finite(label.reliability[0].score) if label.reliability else None


def _most_active(auditor: Auditor, group: str, side: str, k: int) -> list[int]:
    sum_F = np.nan_to_num(auditor.evidence.array(group, f"sum_{side}"))
    return [int(f) for f in np.argsort(-sum_F, kind="stable")[:k] if sum_F[f] > 0]


def _active(evidence: Evidence, sae: str, suite: str, side: str, feature: int) -> ActiveFeature:
    group = features_group(sae, suite)
    num_tokens = next(s.num_tokens for s in evidence.suites if s.name == suite)
    best = evidence.label(sae, feature).best
    return ActiveFeature(
        feature=feature,
        mean_activation=float(evidence.array(group, f"sum_{side}")[feature]) / num_tokens,
        rate=float(evidence.array(group, f"fired_{side}")[feature]) / num_tokens,
        label=None if best is None else Untrusted(best.text),
        label_reliability=None if best is None else reliability(best),
    )


def _changed(
    evidence: Evidence, sae: str, suite: str, direction: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The features that changed on a suite, and their effects."""
    group = features_group(sae, suite)
    effect_F: NDArray[np.float64] = evidence.array(group, "effect").astype(np.float64)
    kept_F = evidence.changed(group) & np.isfinite(effect_F)
    if direction != "either":
        kept_F &= effect_F > 0 if direction == "rose" else effect_F < 0
    found_F = np.flatnonzero(kept_F)
    return found_F, effect_F[found_F]
