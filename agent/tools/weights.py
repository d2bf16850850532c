"""What the fine-tune did to the weights themselves, and where in the network the stream moved."""

from pydantic import Field

from ft_audit.agent.movement import fvus, residuals
from ft_audit.agent.tools.answer import Answer, Untrusted, finite
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import number


class ChangedTensor(Answer):
    tensor: Untrusted = Field(description="Its name in the checkpoint.")
    layer: int | None = Field(description="Its block; null outside of blocks.")
    relative_change: float | None = Field(description="Norm of the change over the base's norm.")
    top1_energy: float | None = Field(
        description="Share of the change's squared norm in its first singular direction."
    )
    effective_rank: float | None = Field(
        description="Of the change: the exponential of its spectrum's entropy."
    )


class ChangedToken(Answer):
    token: Untrusted = Field(description="The token whose embedding row changed.")
    relative_change: float | None = Field(description="Norm of the row's change over its base norm.")
    added: bool = Field(description="Whether the fine-tune added it.")


class WeightFindings(Answer):
    num_tensors: int = Field(description="Tensors compared.")
    num_changed: int = Field(description="Of these, how many differ at all.")
    tensors: list[ChangedTensor] = Field(description="The greatest relative change first.")
    embedding_rows: list[ChangedToken] = Field(description="Embedding rows that changed out of proportion.")


class HookMovement(Answer):
    hook: str
    suite: str
    relative_median: float | None = Field(
        description="Norm of the difference over the base's norm: the median over prompts."
    )
    norm_ratio: float | None = Field(description="Tuned norm over base norm, the median.")
    cosine: float | None = Field(description="Between base and tuned, the median.")


class Explained(Answer):
    sae: str
    suite: str
    base: float | None = Field(description="Fraction of variance that the dictionary leaves unexplained.")
    tuned: float | None = Field(
        description="And in the tuned model: a rise says that something new is there."
    )


class Movement(Answer):
    residual: list[HookMovement] = Field(description="How far the residual stream moved.")
    unexplained: list[Explained] = Field(description="What the dictionaries do not explain.")


@tool("internals")
def weight_findings(auditor: Auditor, limit: Limit = 10) -> WeightFindings:
    """Say which weights changed most, and whether single directions or embedding rows stand out."""
    records = auditor.evidence.records("weights")
    if not records:
        raise ToolError("the weights were not compared: set precompute.weights and run precompute again")
    changed = [r for r in records if not r["identical"]]
    changed.sort(key=lambda r: (-number(r, "relative_change"), r["tensor"]))
    rows = sorted(auditor.evidence.records("embedding_rows"), key=lambda r: -number(r, "relative_change"))
    return WeightFindings(
        num_tensors=len(records),
        num_changed=len(changed),
        tensors=[
            ChangedTensor(
                tensor=Untrusted(r["tensor"]),
                layer=None if r["layer"] is None or r["layer"] < 0 else int(r["layer"]),
                **{n: finite(number(r, n)) for n in ("relative_change", "top1_energy", "effective_rank")},
            )
            for r in changed[:limit]
        ],
        embedding_rows=[
            ChangedToken(
                token=Untrusted(str(r["token"])),
                relative_change=finite(number(r, "relative_change")),
                added=bool(r["added"]),
            )
            for r in rows[:limit]
        ],
    )


@tool("internals")
def residual_movement(auditor: Auditor) -> Movement:
    """Say how far the residual stream moved at each hook, and what the dictionaries still explain of it."""
    evidence = auditor.evidence
    return Movement(
        residual=[
            HookMovement(
                hook=m.hook,
                suite=m.suite,
                relative_median=finite(m.relative_median),
                norm_ratio=finite(m.norm_ratio),
                cosine=finite(m.cosine),
            )
            for m in residuals(evidence)
        ],
        unexplained=[
            Explained(sae=f.sae, suite=f.suite, base=finite(f.base), tuned=finite(f.tuned))
            for f in fvus(evidence)
        ],
    )
