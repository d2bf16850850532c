"""Which tokens the mean difference of the residual streams points to, beside the same for noise."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import number

MEAN = -1  # as the table has it, in the place of a position
TUNED = "tuned"

Few = Annotated[int, Field(ge=1, le=20, description="How many to show.")]


class TokenScore(Answer):
    token: Untrusted
    score: float = Field(
        description="What the difference adds to its logit, but for the factor of the norm of the residual."
    )


class LensReading(Answer):
    suite: str | None = Field(description="Whose text the mean is over; null for a random direction.")
    group: str | None = Field(description="The template, where only its prompts count.")
    position: int | None = Field(description="Place from the prompt's start; null for all tokens.")
    head: Literal["base", "tuned"] = Field(description="Whose final norm and unembedding read it.")
    num: int = Field(description="Tokens that the mean is over; prompts, of a template and of the control.")
    norm: float = Field(description="Norm of the mean difference.")
    relative_norm: float | None = Field(description="The same over the base's mean norm on the suite.")
    percentile: float | None = Field(
        description="Of its strongest token among random directions of equal norm, 0-100."
    )
    promoted: list[TokenScore] = Field(description="Tokens that it points to, the strongest first.")
    suppressed: list[TokenScore] = Field(description="Tokens that it points away from.")


class DifferenceLens(Page):
    hook: str
    readings: list[LensReading] = Field(description="Mean differences of tuned - base.")
    control: LensReading | None = Field(
        description="The base's difference from itself in other batches; null without that run."
    )
    random: LensReading | None = Field(
        description="One random direction, as long as the first reading: what tokens mean nothing."
    )


@tool("internals")
def activation_difference_lens(
    auditor: Auditor,
    suite: Annotated[
        str | None, Field(description="Only on this suite; null takes all.", max_length=100)
    ] = None,
    group: Annotated[str | None, Field(description="Only this template's prompts.", max_length=100)] = None,
    hook: Annotated[
        str | None, Field(description="Where in the model; null takes the last hook.", max_length=100)
    ] = None,
    head: Annotated[
        Literal["base", "tuned"], Field(description="Whose unembedding; an adapter has only the base's.")
    ] = "base",
    num_tokens: Few = 10,
    offset: Offset = 0,
    limit: Few = 10,
) -> DifferenceLens:
    """Say which tokens the mean difference tuned - base of the residual stream points to.

    A narrow fine-tune shows its subject here, even on text that has nothing to do with it and at the first
    positions (Minder, Dumas et al. 2025); in a chat those are the template's own tokens. Any direction
    points to some tokens: compare with `control` and `random`, and look for a subject that several share.
    """
    records = auditor.evidence.records("lens")
    if not records:
        refused = auditor.evidence.summary.get("lens_refused")
        raise ToolError(f"no lens is stored: {refused or 'run precompute again, it makes one'}")
    hooks = list(dict.fromkeys(str(r["hook"]) for r in records))
    hook = hooks[-1] if hook is None else hook
    if hook not in hooks:
        raise ToolError(f"no lens at hook {hook!r}; at: {', '.join(hooks)}")
    here = [r for r in records if (r["hook"], r["head"]) == (hook, head)]
    of_tuned = [r for r in here if r["kind"] == TUNED]
    kept = [r for r in of_tuned if suite in (None, r["suite"]) and group in (None, r["group"])]
    if not kept:
        known = dict.fromkeys(f"{r['suite']}: {r['group'] or 'all prompts'}" for r in of_tuned)
        raise ToolError(
            f"no such reading through the head of {head!r}; there are: {', '.join(known) or 'none'}"
        )
    shown = kept[offset : offset + limit]
    control, random = (next((r for r in here if r["kind"] == kind), None) for kind in ("control", "random"))
    # A reading is linear: one of norm 1 stands for all lengths.
    length = number(kept[0], "norm")
    return DifferenceLens(
        total=len(kept),
        next_offset=next_offset(len(kept), offset, len(shown)),
        hook=hook,
        readings=[_reading(r, num_tokens) for r in shown],
        control=None if control is None else _reading(control, num_tokens),
        random=None if random is None else _reading(random, num_tokens, length),
    )


def _reading(record: dict[str, Any], num_tokens: int, times: float = 1.0) -> LensReading:
    norm, base_norm = times * number(record, "norm"), number(record, "base_norm")
    return LensReading(
        suite=record["suite"],
        group=record["group"],
        position=None if record["position"] == MEAN else int(record["position"]),
        head=record["head"],
        num=int(record["num"]),
        norm=norm,
        relative_norm=norm / base_norm if base_norm else None,
        percentile=finite(number(record, "percentile")),
        **{
            side: [
                TokenScore(token=Untrusted(token), score=times * float(effect))
                for token, effect in zip(record[side], record[f"{side}_effect"], strict=True)
            ][:num_tokens]
            for side in ("promoted", "suppressed")
        },
    )
