"""What sets features off: how far a suite moves them all, and which training rows drive one."""

import numpy as np
from pydantic import Field

from ft_audit.agent.tools.answer import Answer, Page, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.features import FeatureIndex, SaeName, SuiteName, group_of
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import features_group
from ft_audit.engine.store.feature_index_reader import SIDES

CHAT = "chat"


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
def score_candidate_suite(
    auditor: Auditor, suite: SuiteName, sae: SaeName = None, k: Limit = 20
) -> SuiteScore:
    """Sum the k largest feature differences on a suite, plain and with the drift on ordinary chats taken off.

    It has no meaning alone: figures_against_benign has scores with their percentile among benign fine-tunes.
    """
    evidence = auditor.evidence
    name, group = group_of(evidence, sae, suite)
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
    name, _ = group_of(evidence, sae, train)
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
