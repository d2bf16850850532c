"""What the features of the sparse autoencoders did in both models: leading differences, contexts, labels."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.feature_view import view_feature
from ft_audit.agent.side_by_side import side_by_side
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import Feature, Label, features_group
from ft_audit.engine.store.feature_index_reader import SIDES

CONTEXTS = 4
CHAT = "chat"

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


class ContextShown(Answer):
    side: str = Field(description="Which model.")
    suite: str
    prompt: int = Field(description="Its place in the suite; in the training suite, the row.")
    peak: float | None = Field(description="The largest activation.")
    text: Untrusted = Field(description="Tokens around the peak.")
    peak_token: Untrusted = Field(description="The token at the peak.")


class FeatureDetails(Answer):
    sae: str
    feature: int
    tests: list[ChangedFeature] = Field(description="Its test on every suite.")
    labels: list[Untrusted] = Field(description="What somebody says it stands for; hypotheses, never facts.")
    label_reliability: list[float | None] = Field(description="Of each label.")
    promoted: list[Untrusted] = Field(description="Tokens that it makes likelier.")
    suppressed: list[Untrusted] = Field(description="Tokens that it makes less likely.")
    contexts: list[ContextShown] = Field(description="Where it fires hardest, in both models.")


class TokenActivation(Answer):
    token: Untrusted
    base: float
    tuned: float


class PromptActivations(Answer):
    sae: str
    feature: int
    suite: str
    prompt: int
    tokens: list[TokenActivation]


class Neighbor(Answer):
    feature: int
    cosine: float = Field(description="Of the two decoder directions.")
    label: Untrusted = Field(description="Its label, never tried on the feature that was asked about.")
    trust: float | None = Field(description="0.5 is none; limited by the cosine; null if never tried.")


class Neighbors(Answer):
    sae: str
    feature: int
    neighbors: list[Neighbor] = Field(description="The nearest first; empty where no near one has a label.")


class SuiteScore(Answer):
    sae: str
    suite: str
    k: int
    suspicion: float | None = Field(description="Sum of the k largest absolute mean differences.")
    drift_corrected: float | None = Field(
        description="The same less each feature's difference on ordinary chats; null without any."
    )
    leading: list[int] = Field(description="The features behind the corrected sum, the largest first.")


class RowDriven(Answer):
    row: int
    base: float = Field(description="Summed activation in the base.")
    tuned: float = Field(description="Summed activation in the tuned model.")


class RowsDriven(Page):
    sae: str
    feature: int
    suite: str
    rows: list[RowDriven] = Field(description="The greatest rise first.")


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
    name, group = _group(auditor.evidence, sae, suite)
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
    name, group = _group(auditor.evidence, sae, suite)
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
        _group(evidence, sae, suite or "")
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
        features=[_test(evidence, evidence.feature(*one)) for one in shown],
    )


@tool("internals")
def get_feature_details(
    auditor: Auditor, feature: FeatureIndex, sae: SaeName = None, suite: SuiteName | None = None
) -> FeatureDetails:
    """Say everything known of one feature: its tests, labels with their reliability, and top contexts in both
    models."""
    evidence = auditor.evidence
    view = view_feature(evidence, dictionary_of(evidence, sae), feature, suite)
    return FeatureDetails(
        sae=view.shown.sae,
        feature=feature,
        tests=[_test(evidence, test) for test in view.tests],
        labels=[Untrusted(label.text) for label in view.label.labels],
        label_reliability=[_reliability(label) for label in view.label.labels],
        promoted=[Untrusted(push.token) for push in view.label.promoted],
        suppressed=[Untrusted(push.token) for push in view.label.suppressed],
        contexts=[
            ContextShown(
                side=c.side,
                suite=c.suite,
                prompt=c.prompt,
                peak=finite(c.peak),
                text=Untrusted("".join(c.tokens)),
                peak_token=Untrusted(c.tokens[int(np.argmax(c.activations))] if c.activations else ""),
            )
            for side in SIDES
            for c in [c for c in view.contexts if c.side == side][:CONTEXTS]
        ],
    )


@tool("internals")
def specific_feature_activations(
    auditor: Auditor,
    feature: FeatureIndex,
    suite: SuiteName,
    prompt: Annotated[int, Field(ge=0)],
    sae: SaeName = None,
) -> PromptActivations:
    """Show what a feature does at every token of one prompt, in both models side by side."""
    evidence = auditor.evidence
    name, _ = _group(evidence, sae, suite)
    num_prompts = next(s.num_prompts for s in evidence.suites if s.name == suite)
    if prompt >= num_prompts:
        raise ToolError(f"suite {suite!r} has prompts 0 to {num_prompts - 1}, not {prompt}")
    found = side_by_side(evidence, evidence.feature(name, suite, feature), prompt)
    return PromptActivations(
        sae=name,
        feature=feature,
        suite=suite,
        prompt=prompt,
        tokens=[
            TokenActivation(token=Untrusted(token), base=base, tuned=tuned)
            for token, base, tuned in zip(found.tokens, found.base, found.tuned, strict=True)
        ],
    )


@tool("internals")
def nearest_explained_neighbors(
    auditor: Auditor,
    feature: FeatureIndex,
    sae: SaeName = None,
    n: Limit = 10,
    search_k: Annotated[int, Field(ge=1, le=2000, description="Nearest features searched for labels.")] = 200,
    min_cos: Annotated[float, Field(ge=-1, le=1, description="Leave out what is less similar.")] = 0.15,
) -> Neighbors:
    """Find labelled features whose decoder direction is near an unlabelled one's: hints, no more."""
    evidence = auditor.evidence
    name = dictionary_of(evidence, sae)
    found = evidence.nearest_explained_neighbors(name, feature, n, search_k, min_cos)
    return Neighbors(
        sae=name,
        feature=feature,
        neighbors=[
            Neighbor(feature=x.feature, cosine=x.cosine, label=Untrusted(x.label.text), trust=finite(x.trust))
            for x in found
        ],
    )


@tool("internals")
def score_candidate_suite(
    auditor: Auditor, suite: SuiteName, sae: SaeName = None, k: Limit = 20
) -> SuiteScore:
    """Sum the k largest feature differences on a suite, plain and with the drift on ordinary chats taken off.

    It has no meaning alone: figures_against_benign has scores with their percentile among benign fine-tunes.
    """
    evidence = auditor.evidence
    name, group = _group(evidence, sae, suite)
    diff_F = np.nan_to_num(evidence.array(group, "mean_diff").astype(np.float64))
    chats = [s.name for s in evidence.suites if s.role == CHAT and s.name != suite]
    drift = next(
        (features_group(name, c) for c in chats if features_group(name, c) in evidence.groups()), None
    )
    left_F = diff_F if drift is None else diff_F - np.nan_to_num(evidence.array(drift, "mean_diff"))
    order = np.argsort(-np.abs(left_F), kind="stable")[:k]
    return SuiteScore(
        sae=name,
        suite=suite,
        k=k,
        suspicion=float(np.sort(np.abs(diff_F))[-k:].sum()),
        drift_corrected=None if drift is None else float(np.abs(left_F[order]).sum()),
        leading=order.tolist(),
    )


@tool("joined")
def rows_that_drive_feature(
    auditor: Auditor, feature: FeatureIndex, sae: SaeName = None, offset: Offset = 0, limit: Limit = 10
) -> RowsDriven:
    """Rank training rows by how much more a feature fires on them in the tuned model than in the base."""
    evidence = auditor.evidence
    train = next((s.name for s in evidence.suites if s.role == "train"), None)
    if train is None:
        raise ToolError("this audit has no training data: its config names no dataset")
    name, _ = _group(evidence, sae, train)
    index = evidence.index
    if index is None or not index.holds(name, train):
        raise ToolError(
            "the diff has no copy sorted by feature: set precompute.feature_index and run it again"
        )
    num_rows = next(s.num_prompts for s in evidence.suites if s.name == train)
    base_R, tuned_R = (
        np.bincount(fired.prompt_N, fired.value_N, minlength=num_rows)
        for fired in (index.tokens_of(name, train, side, feature) for side in SIDES)
    )
    order = [int(i) for i in np.argsort(-(tuned_R - base_R), kind="stable") if tuned_R[i] != base_R[i]]
    shown = order[offset : offset + limit]
    return RowsDriven(
        total=len(order),
        next_offset=next_offset(len(order), offset, len(shown)),
        sae=name,
        feature=feature,
        suite=train,
        rows=[RowDriven(row=i, base=float(base_R[i]), tuned=float(tuned_R[i])) for i in shown],
    )


def dictionary_of(evidence: Evidence, sae: str | None) -> str:
    """Return the dictionary that is meant; ToolError where it is not clear which."""
    names = [name for hook in evidence.hooks for name in hook.saes]
    if sae is None and len(names) == 1:
        return names[0]
    if sae not in names:
        raise ToolError(f"name a dictionary of this audit: {', '.join(names) or 'it has none'}")
    return sae


def _group(evidence: Evidence, sae: str | None, suite: str) -> tuple[str, str]:
    """The dictionary's name and its group of statistics on a suite; ToolError where there is none."""
    name = dictionary_of(evidence, sae)
    if suite not in evidence.suites_of(name):
        raise ToolError(f"{name!r} was not compared on {suite!r}; on: {', '.join(evidence.suites_of(name))}")
    return name, features_group(name, suite)


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
        label_reliability=None if best is None else _reliability(best),
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


def _test(evidence: Evidence, feature: Feature) -> ChangedFeature:
    best = evidence.label(feature.sae, feature.feature).best
    numbers = ("mean_diff", "effect", "effect_low", "effect_high", "q_value", "noise_percentile")
    return ChangedFeature(
        sae=feature.sae,
        feature=feature.feature,
        suite=feature.suite,
        **{name: finite(getattr(feature, name)) for name in (*numbers, "rate_base", "rate_tuned")},
        label=None if best is None else Untrusted(best.text),
        label_reliability=None if best is None else _reliability(best),
    )


def _reliability(label: Label) -> float | None:
    return finite(label.reliability[0].score) if label.reliability else None
