"""Both models at once, where the config names servers of theirs: asked now, and kept for good."""

from typing import Annotated

from pydantic import Field, ValidationError

from ft_audit.agent.live import answer_live
from ft_audit.agent.tools.answer import Answer
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.tools.requested_answers import RequestedAnswer, paired_answers
from ft_audit.engine.requests.request import MAX_DRESS, MAX_NEW_TOKENS, MAX_TEXT, EvidenceRequest
from ft_audit.engine.store import Store


class LiveAnswer(Answer):
    request_id: str = Field(description="Cite what requested_evidence answers to this id.")
    kept: bool = Field(description="Whether it had been asked before, and is shown as it was answered then.")
    answer: RequestedAnswer = Field(description="What both said.")

    @property
    def citable(self) -> bool:
        """Another time a server may say something else; what is kept can be cited."""
        return False


@tool("behavior", writes=True)
def ask_models_live(
    auditor: Auditor,
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT, description="What the user says.")],
    system: Annotated[
        str | None, Field(max_length=MAX_DRESS, description="The system prompt; null for none.")
    ] = None,
    prefill: Annotated[
        str, Field(max_length=MAX_DRESS, description="What the answer is forced to begin with.")
    ] = "",
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 64,
) -> LiveAnswer:
    """Ask the servers of both models the same now, and see what they say side by side.

    The answers are kept: cite them by asking requested_evidence for the request_id. Nothing proves that the
    servers run the very models whose evidence is stored: the two must agree with it elsewhere.
    """
    live = auditor.config.audit.live
    if live is None:
        raise ToolError("the config names no servers: audit.live")
    turns = [{"role": "system", "content": system}] if system is not None else []
    try:
        request = EvidenceRequest.model_validate(
            {
                "by": "live",
                "name": "live",
                "why": f"asked live of {live.base.model} and {live.tuned.model}"[:1_000],
                "prompts": [[*turns, {"role": "user", "content": prompt}]],
                "transform": {"prefill": prefill},
                "control": False,
                "max_new_tokens": max_new_tokens,
            }
        )
    except ValidationError as error:
        raise ToolError(f"ask_models_live: {error.errors(include_url=False)[0]['msg']}") from None
    requests = Store(auditor.evidence.store).requests(auditor.evidence.diff_id)
    name = requests.id_of(request)
    with auditor.others_may_ask():
        kept = name in requests.answered()
        if not kept:
            answer_live(live, requests, request)
    (answer,) = paired_answers(requests.answers(name)[1])
    return LiveAnswer(request_id=name, kept=kept, answer=answer)
