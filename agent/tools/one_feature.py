"""All that is known of one feature: its tests, labels, contexts, neighbours, and what it does in a prompt."""

from typing import Annotated

import numpy as np
from pydantic import Field

from ft_audit.agent.feature_view import view_feature
from ft_audit.agent.side_by_side import side_by_side
from ft_audit.agent.tools.answer import Answer, Untrusted, finite
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.features import (
    ChangedFeature,
    FeatureIndex,
    SaeName,
    SuiteName,
    changed_feature,
    dictionary_of,
    group_of,
    reliability,
)
from ft_audit.agent.tools.overview import Limit
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.engine.store.feature_index_reader import SIDES

CONTEXTS = 4
"""Shown of each model."""


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
        tests=[changed_feature(evidence, test) for test in view.tests],
        labels=[Untrusted(label.text) for label in view.label.labels],
        label_reliability=[reliability(label) for label in view.label.labels],
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
    name, _ = group_of(evidence, sae, suite)
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
