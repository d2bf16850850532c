"""Two groups of prompts set against each other: what the fine-tune moved in the one and not in the other."""

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.prompt_groups import PromptGroup, Prompts, find_prompts, paired, rest_of
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.features import SaeName, dictionary_of
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.engine.statistics.contrast import GroupMeans, Interval, contrast, group_means, welch
from ft_audit.engine.store.prompt_features import prompt_features

MIN_PROMPTS, MAX_REST = 3, 32
MAX_Q = 0.05
# What can be read and summed up in some 50 ms.
MAX_SCANNED, MAX_FIRINGS = 3_000_000, 500_000


class FeatureContrast(Answer):
    feature: int = Field(description="Its number.")
    difference: float = Field(
        description="Difference in differences: (tuned - base) in group a less (tuned - base) in group b."
    )
    low: float | None = Field(description="Of its 95 % interval.")
    high: float | None = Field(description="Of its 95 % interval.")
    q_value: float | None = Field(description="Benjamini-Hochberg over the features tested here.")
    base_a: float = Field(description="Mean activation a token, then over a's prompts, in the base.")
    tuned_a: float
    base_b: float
    tuned_b: float
    rate_base_a: float = Field(description="Share of tokens on which it fires, over a's prompts.")
    rate_tuned_a: float
    rate_base_b: float
    rate_tuned_b: float
    label: Untrusted | None = Field(description="What somebody says it stands for; a hypothesis.")
    label_reliability: float | None = Field(description="0.5 is chance; null if never tried.")


class ResidualContrast(Answer):
    hook: str
    shift_a: float = Field(description="Norm of tuned - base over the base's norm, mean over a's prompts.")
    shift_b: float
    difference: float = Field(description="a's less b's.")
    low: float | None = Field(description="Of its 95 % interval.")
    high: float | None = Field(description="Of its 95 % interval.")
    p_value: float | None


class GroupContrast(Page):
    sae: str
    num_a: int = Field(description="Prompts of group a that have a token that counts.")
    num_b: int = Field(description="And of group b.")
    paired: bool = Field(
        description="Whether the groups are the same probes under two templates, compared probe by probe."
    )
    num_tested: int = Field(description="Features that fired in enough of the prompts.")
    num_significant: int = Field(description="Of these, q below 0.05.")
    residual: list[ResidualContrast] = Field(description="How far the residual stream moved, by hook.")
    features: list[FeatureContrast] = Field(
        description="Features tested: significant ones, then the others, by the size of the difference."
    )


class _Groups(NamedTuple):
    a: Prompts
    b: Prompts
    paired: bool


@tool("internals")
def compare_prompt_groups(
    auditor: Auditor,
    a: Annotated[PromptGroup, Field(description="The group in question.")],
    b: Annotated[
        PromptGroup | None,
        Field(description="What it is set against; null spreads 32 at most over the rest of a's suite."),
    ] = None,
    features: Annotated[
        tuple[int, ...],
        Field(description="Only these features; empty takes all, of small groups.", max_length=10),
    ] = (),
    sae: SaeName = None,
    offset: Offset = 0,
    limit: Limit = 10,
) -> GroupContrast:
    """Say which features the fine-tune moved more in one group of prompts than in another.

    The figure is a difference in differences, tested over prompts: what differs between the groups in the
    base alone, such as their topic, is taken off. Prompts under one template share its words, so compare it
    with other templates too. differential_feature_analysis asks for a whole suite.
    """
    evidence = auditor.evidence
    name = dictionary_of(evidence, sae)
    groups = _groups(evidence, a, b)
    means_a, means_b = _means(evidence, name, groups, features)
    found, q_F = contrast(means_a, means_b, paired=groups.paired)
    # Not by the test: what a template's fixed words do is the same in every prompt, however little it is.
    order = np.lexsort((-np.abs(found.difference), ~(q_F < MAX_Q)))
    tested = order[np.isfinite(q_F[order])].tolist()
    shown = tested[offset : offset + limit]
    return GroupContrast(
        total=len(tested),
        next_offset=next_offset(len(tested), offset, len(shown)),
        sae=name,
        num_a=means_a.num_prompts,
        num_b=means_b.num_prompts,
        paired=groups.paired,
        num_tested=len(tested),
        num_significant=int((q_F < MAX_Q).sum()),
        residual=_residuals(evidence, groups),
        features=[_feature(evidence, name, f, means_a, means_b, found, q_F) for f in shown],
    )


def _groups(evidence: Evidence, a: PromptGroup, b: PromptGroup | None) -> _Groups:
    index = evidence.index
    if index is None:
        raise ToolError(
            "the diff has no copy sorted by feature: set precompute.feature_index and run precompute again"
        )
    first = find_prompts(evidence, a)
    second = rest_of(evidence, first, MAX_REST) if b is None else find_prompts(evidence, b)
    both = []
    for name, group in (("a", first), ("b", second)):
        indptr_P1, counted_T = index.prompt_indptr(group.suite.name), index.counted(group.suite.name)
        bounds = zip(indptr_P1[group.prompt_G], indptr_P1[group.prompt_G + 1], strict=True)
        spoken_G = np.array([bool(counted_T[start:stop].any()) for start, stop in bounds], dtype=np.bool_)
        kept = group.only(spoken_G)
        if len(kept.prompt_G) < MIN_PROMPTS:
            raise ToolError(
                f"group {name} has {len(kept.prompt_G)} prompts with tokens that count: {MIN_PROMPTS} are "
                "the fewest that can be tested"
            )
        both.append(kept)
    first, second = both
    shared = np.intersect1d(first.prompt_G, second.prompt_G)
    if first.suite == second.suite and len(shared):
        raise ToolError(f"prompt {shared[0]} is in both groups: {len(shared)} are; give groups apart")
    if (pairs := paired(first, second)) is not None:
        return _Groups(pairs[0], pairs[1], True)
    return _Groups(first, second, False)


def _means(
    evidence: Evidence, sae: str, groups: _Groups, features: tuple[int, ...]
) -> tuple[GroupMeans, GroupMeans]:
    """Return the means of both groups; those of one suite are read together.

    Raises:
        ToolError: they would take too long to read.
    """
    index = evidence.index
    assert index is not None, "asked before"
    by_suite: dict[str, list[NDArray[np.int64]]] = {}
    for group in (groups.a, groups.b):
        by_suite.setdefault(group.suite.name, []).append(group.prompt_G)
    chosen = features or None
    scanned, firings = 0, 0.0
    for suite, parts in by_suite.items():
        indptr_P1, prompt_G = index.prompt_indptr(suite), np.concatenate(parts)
        num_entries = index.num_entries(sae, suite, chosen)
        asked = int((indptr_P1[prompt_G + 1] - indptr_P1[prompt_G]).sum())
        scanned += num_entries
        firings += num_entries * asked / max(index.num_tokens(suite), 1)
    if scanned > MAX_SCANNED or firings > MAX_FIRINGS:
        fitting = min(MAX_SCANNED / max(scanned, 1), MAX_FIRINGS / max(firings, 1))
        total = len(groups.a.prompt_G) + len(groups.b.prompt_G)
        fewer = f"at most some {int(total * fitting)} prompts together, or " * (scanned <= MAX_SCANNED)
        raise ToolError(
            f"groups of {len(groups.a.prompt_G)} and {len(groups.b.prompt_G)} prompts have {firings:,.0f} "
            f"firings among {scanned:,} stored, too many to compare at once: give {fewer}features by number"
        )
    found = {
        suite: prompt_features(index, sae, suite, np.sort(np.concatenate(parts)), chosen)
        for suite, parts in by_suite.items()
    }
    both = []
    for group in (groups.a, groups.b):
        together_G = np.sort(np.concatenate(by_suite[group.suite.name]))
        both.append(group_means(found[group.suite.name], np.searchsorted(together_G, group.prompt_G)))
    return both[0], both[1]


def _residuals(evidence: Evidence, groups: _Groups) -> list[ResidualContrast]:
    stored = set(evidence.groups())
    found = []
    for hook in evidence.hooks:
        names = [f"residual/{hook.name}/{group.suite.name}" for group in (groups.a, groups.b)]
        if not stored.issuperset(names):
            continue
        moved = []
        for name, group in zip(names, (groups.a, groups.b), strict=True):
            base_P = evidence.array(name, "norm_base_P")[group.prompt_G]
            relative_P = evidence.array(name, "diff_norm_P")[group.prompt_G] / base_P
            moved.append(relative_P[np.isfinite(relative_P)].astype(np.float64))
        a, b = moved
        if min(len(a), len(b)) >= MIN_PROMPTS:
            found.append(_residual(hook.name, a, b))
    return found


def _residual(hook: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> ResidualContrast:
    test = welch(a.sum(), (a**2).sum(), len(a), b.sum(), (b**2).sum(), len(b))
    return ResidualContrast(
        hook=hook,
        shift_a=float(a.mean()),
        shift_b=float(b.mean()),
        difference=float(test.difference),
        low=finite(float(test.low)),
        high=finite(float(test.high)),
        p_value=finite(float(test.p)),
    )


def _feature(
    evidence: Evidence,
    sae: str,
    feature: int,
    a: GroupMeans,
    b: GroupMeans,
    found: Interval,
    q_F: NDArray[np.float64],
) -> FeatureContrast:
    best = evidence.label(sae, feature).best
    return FeatureContrast(
        feature=feature,
        difference=float(found.difference[feature]),
        low=finite(float(found.low[feature])),
        high=finite(float(found.high[feature])),
        q_value=finite(float(q_F[feature])),
        **{
            f"{name}{side}_{group}": float(getattr(means, f"{what}_{side}_F")[feature])
            for group, means in (("a", a), ("b", b))
            for side in ("base", "tuned")
            for name, what in (("", "mean"), ("rate_", "rate"))
        },
        label=None if best is None else Untrusted(best.text),
        label_reliability=finite(best.reliability[0].score) if best and best.reliability else None,
    )
