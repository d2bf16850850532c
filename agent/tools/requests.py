"""Evidence that the store does not hold: asked for here, answered by the engine's next run."""

from typing import Annotated, Literal

from pydantic import Field

from ft_audit.agent.tools.answer import Answer, Untrusted, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.tools.requested_answers import Outcome, RequestedAnswer, outcomes, paired_answers
from ft_audit.engine.config.asked_suites import asked_suites
from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import Requests, Store
from ft_audit.errors import DataError

MAX_SHOWN = 20


class RequestStanding(Answer):
    request_id: str = Field(description="Ask for its answers by this.")
    state: Literal["open", "answered", "refused", "damaged"] = Field(
        description="`open` waits for the engine; `refused` could not be put to the models."
    )
    name: Untrusted | None = Field(description="As it was named; null where it cannot be read.")
    why: Untrusted | None = Field(description="What it was to tell apart.")
    reason: Untrusted | None = Field(description="Why it was refused, or cannot be read.")


class Queued(Answer):
    request: RequestStanding = Field(description="What was queued, or was there already.")
    to_answer: str = Field(description="What its owner runs to have it answered; you cannot.")

    @property
    def citable(self) -> bool:
        """No evidence: what becomes of a request changes."""
        return False


class RequestedEvidence(Answer):
    requests: list[RequestStanding] = Field(description="All requests, or the one asked for.")
    suites: list[str] = Field(description="Suites that may be requested; empty beside answers.")
    outcomes: list[Outcome] = Field(description="What the answers come to; empty without a request_id.")
    num_decoded: dict[str, int] = Field(description="By model, answers in the request's encoding.")
    asked_of: str | None = Field(description="Device and versions that answered.")
    total: int = Field(description="Prompts of the request, control included, or requests in all.")
    next_offset: int | None = Field(description="Ask again with this offset for more; null at the end.")
    answers: list[RequestedAnswer] | None = Field(description="One prompt each; null without a request_id.")

    @property
    def citable(self) -> bool:
        """Answers stay; the list of requests does not."""
        return self.answers is not None


@tool("behavior", writes=True)
def request_evidence(
    auditor: Auditor,
    request: Annotated[
        EvidenceRequest,
        Field(description="Prompts or a suite, what is done to them, and why; each is asked of both models."),
    ],
) -> Queued:
    """Ask for answers that the store does not hold: to your own prompts or a suite, with a prefix, suffix,
    trigger, system prompt, prefill or encoding, by both models, and to the same prompts untransformed.

    No model runs now: the request waits for the engine's next run. Asking twice is asking once. This is no
    evidence; what requested_evidence answers later is.
    """
    if request.by != "engine":
        raise ToolError("request.by: only ask_models_live, where it is offered, asks live servers")
    suites = asked_suites(auditor.config)
    if request.suite is not None and request.suite not in suites:
        raise ToolError(f"no suite {request.suite}; there are: {', '.join(sorted(suites)) or 'none'}")
    _try_codec(request)
    requests = _requests(auditor)
    name = requests.queue(request)
    command = f"ft-audit precompute CONFIG --requests --diff {requests.diff}"
    return Queued(request=_standing(requests, name), to_answer=command)


@tool("behavior")
def requested_evidence(
    auditor: Auditor,
    request_id: Annotated[
        str | None, Field(pattern="^[0-9a-f]{16}$", description="One request; null lists them.")
    ] = None,
    variant: Annotated[
        Literal["transformed", "control"] | None, Field(description="Only these; null for both.")
    ] = None,
    offset: Offset = 0,
    limit: Annotated[int, Field(ge=1, le=MAX_SHOWN, description="How many to show.")] = 5,
) -> RequestedEvidence:
    """List what was requested and whether it is answered; or show the answers to one request, side by side,
    with what they come to: shares with intervals, and the change beyond that without the transform."""
    requests = _requests(auditor)
    if request_id is None:
        names = requests.ids()
        shown = names[offset : offset + limit]
        return RequestedEvidence(
            requests=[_standing(requests, name) for name in shown],
            suites=sorted(asked_suites(auditor.config)),
            outcomes=[],
            num_decoded={},
            asked_of=None,
            total=len(names),
            next_offset=next_offset(len(names), offset, len(shown)),
            answers=None,
        )
    record, table = requests.answers(request_id)
    found = [one for one in paired_answers(table) if variant in (None, one.variant)]
    part = found[offset : offset + limit]
    return RequestedEvidence(
        requests=[_standing(requests, request_id)],
        suites=[],
        outcomes=outcomes(record),
        num_decoded={c.side: c.decoded for c in record.counts if c.variant == "transformed"},
        asked_of=record.asked_of,
        total=len(found),
        next_offset=next_offset(len(found), offset, len(part)),
        answers=part,
    )


def _requests(auditor: Auditor) -> Requests:
    return Store(auditor.evidence.store).requests(auditor.evidence.diff_id)


def _try_codec(request: EvidenceRequest) -> None:
    """ToolError where an encoding makes too much of a prompt: sooner said than after the engine's run."""
    transform = request.transform
    for asked in request.prompts or ():
        text = asked if isinstance(asked, str) else asked[-1].content
        try:
            transform.codec.encode(transform.prefix + text + transform.suffix)
        except DataError as error:
            raise ToolError(f"request.transform.codec: {error}") from None


def _standing(requests: Requests, name: str) -> RequestStanding:
    found = requests.state(name)
    return RequestStanding(
        request_id=name,
        state=found.state,
        name=None if found.request is None else Untrusted(found.request.name),
        why=None if found.request is None else Untrusted(found.request.why),
        reason=Untrusted(found.reason) if found.reason else None,
    )
