"""The answers to one request, side by side, and what they come to."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from ft_audit.agent.contrasts import contrast
from ft_audit.agent.labels.intervals import wilson
from ft_audit.agent.tools.answer import Answer, Untrusted
from ft_audit.engine.store import Table
from ft_audit.engine.store.request_record import Counts, RequestRecord

Judged = Literal["refused", "complied", "broken"]
JUDGED: tuple[Judged, ...] = ("refused", "complied", "broken")


class AnswerPart(Answer):
    answer: Untrusted = Field(description="As the model wrote it, without the prefill.")
    decoded: Untrusted | None = Field(description="What it says in the request's encoding, if it does.")
    refused: bool = Field(description="Whether it refuses, decoded or as written.")
    complied: bool = Field(description="Whether it opens by agreeing, decoded.")
    broken: bool = Field(description="Whether it is empty or one piece again and again.")
    cut: bool = Field(description="Whether it ran into the request's limit.")


class RequestedAnswer(Answer):
    variant: Literal["transformed", "control"] = Field(description="Transformed, or as it is.")
    prompt: int = Field(description="Its place among the request's prompts.")
    asked: Untrusted = Field(description="What was asked, role by role.")
    prefill: Untrusted | None = Field(description="What the answer was forced to begin with.")
    base: AnswerPart = Field(description="The base's answer, the control.")
    tuned: AnswerPart = Field(description="The tuned model's answer.")


class Share(Answer):
    count: int = Field(description="How many answers.")
    total: int = Field(description="Of how many.")
    low: float = Field(description="Lower end of the share's 95 % Wilson interval.")
    high: float = Field(description="Upper end.")


class Difference(Answer):
    value: float = Field(description="Difference of shares.")
    low: float = Field(description="Lower end of its 95 % interval, Wilson joined by Newcombe's method.")
    high: float = Field(description="Upper end.")


class Outcome(Answer):
    judged: Judged = Field(description="What is counted.")
    base: Share = Field(description="Of the base's answers to the transformed prompts.")
    tuned: Share = Field(description="Of the tuned model's.")
    base_control: Share | None = Field(description="Of the base's to the untransformed ones; null unasked.")
    tuned_control: Share | None = Field(description="Of the tuned model's.")
    tuned_less_base: Difference = Field(description="On the transformed prompts.")
    beyond_control: Difference | None = Field(
        description="That, less the same on the untransformed prompts: a difference in differences."
    )


def paired_answers(table: Table) -> Iterator[RequestedAnswer]:
    """Yield what both models answered, prompt by prompt."""
    pairs: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for record in table.records():
        pairs.setdefault((record["variant"], int(record["prompt"])), {})[record["side"]] = record
    for (variant, prompt), sides in pairs.items():
        yield RequestedAnswer.model_validate(
            {
                "variant": variant,
                "prompt": prompt,
                "asked": Untrusted(sides["base"]["asked"]),
                "prefill": Untrusted(sides["base"]["prefill"]) if sides["base"]["prefill"] else None,
                "base": _part(sides["base"]),
                "tuned": _part(sides["tuned"]),
            }
        )


def _part(record: Mapping[str, Any]) -> AnswerPart:
    return AnswerPart(
        answer=Untrusted(record["answer"]),
        decoded=None if record["decoded"] is None else Untrusted(record["decoded"]),
        refused=record["refused"],
        complied=record["complied"],
        broken=record["broken"],
        cut=record["finish"] == "length",
    )


def outcomes(record: RequestRecord) -> list[Outcome]:
    """Return what a request's answers come to."""
    return [_outcome(name, record) for name in JUDGED]


def _outcome(name: Judged, record: RequestRecord) -> Outcome:
    by = {(counts.variant, counts.side): counts for counts in record.counts}
    base, tuned = by["transformed", "base"], by["transformed", "tuned"]
    base_control, tuned_control = by.get(("control", "base")), by.get(("control", "tuned"))
    first = [_term(1, tuned, name), _term(-1, base, name)]
    beyond = None
    if base_control is not None and tuned_control is not None:
        beyond = contrast([*first, _term(-1, tuned_control, name), _term(1, base_control, name)])
    return Outcome(
        judged=name,
        base=_share(base, name),
        tuned=_share(tuned, name),
        base_control=None if base_control is None else _share(base_control, name),
        tuned_control=None if tuned_control is None else _share(tuned_control, name),
        tuned_less_base=Difference(**contrast(first)._asdict()),
        beyond_control=None if beyond is None else Difference(**beyond._asdict()),
    )


def _term(sign: int, counts: Counts, name: Judged) -> tuple[int, int, int]:
    return sign, int(getattr(counts, name)), counts.num


def _share(counts: Counts, name: Judged) -> Share:
    count = int(getattr(counts, name))
    low, high = wilson(count, counts.num)
    return Share(count=count, total=counts.num, low=low, high=high)
