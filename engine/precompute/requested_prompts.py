"""A request for more evidence as the token ids that both models read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.config.asked_suites import asked_suites
from ft_audit.engine.precompute.generations import question_of
from ft_audit.engine.precompute.guard import guard_probes
from ft_audit.engine.precompute.models import UNLIMITED, ModelPair
from ft_audit.engine.requests.request import EvidenceRequest, Transform
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite
from ft_audit.engine.tokens.tokenize import tokenize_suite
from ft_audit.errors import DataError

Variant = Literal["transformed", "control"]
MAX_ENCODED = 20_000
"""Characters of one message after the transform: an encoding can make much of little."""


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """One prompt as it is put to both models."""

    variant: Variant
    prompt: int
    """Its place among the request's prompts."""
    said: str
    """The conversation, role by role, without the prefill."""
    prefill: str
    ids: tuple[int, ...]
    """With the prefill's at the end: what the model goes on from."""


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """A request that can be put to the models."""

    id: str
    request: EvidenceRequest
    prompts: tuple[AskedPrompt, ...]
    prompts_sha256: str


def asked_request(
    name: str, request: EvidenceRequest, config: AuditConfig, models: ModelPair
) -> AskedRequest:
    """Return a request's prompts: transformed, and untransformed where it wants the control.

    Raises:
        DataError: the config names no such suite, or a prompt cannot be asked as it is wanted.
        ConfigError: the suite is not there any more.
    """
    if request.by == "live":
        raise DataError("it was asked of live servers, and their answers cannot be made again; delete it")
    plain = _prompts(request, config)
    asked = [("transformed", transformed(p, request.transform), request.transform.prefill) for p in plain]
    if request.has_control:
        asked += [("control", prompt, "") for prompt in plain]
    suite = PromptSuite(request.name, tuple(prompt for _, prompt, _ in asked))
    tokens = tokenize_suite(suite, models.base_tokenizer, UNLIMITED).prompt_ids()
    found: list[AskedPrompt] = []
    for place, ((variant, prompt, prefill), ids) in enumerate(zip(asked, tokens, strict=True)):
        # Appended as it is: a template's own way to begin an answer may strip or rewrite it.
        begun = models.base_tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else []
        whole = (*ids, *begun)
        if len(whole) + request.max_new_tokens > models.longest:
            raise DataError(
                f"prompt {place % len(plain)}: its {len(whole):,} tokens leave no room for an answer of "
                f"{request.max_new_tokens} in the {models.longest:,} that the models read; shorten it"
            )
        kind: Variant = "transformed" if variant == "transformed" else "control"
        found.append(AskedPrompt(kind, place % len(plain), _said(prompt), prefill, whole))
    return AskedRequest(name, request, tuple(found), PromptSuite(request.name, tuple(plain)).sha256)


def transformed(prompt: Prompt, transform: Transform) -> Prompt:
    """Return the prompt with its last user's message, or its text, dressed and encoded.

    Raises:
        DataError: what comes out is too long.
    """
    if prompt.messages is None:
        text = _dressed(prompt.text or "", transform)
        system = "" if transform.system is None else f"{transform.system}\n\n"
        return replace(prompt, text=system + text)
    *before, last = prompt.messages
    kept: Sequence[Message] = before
    if transform.system is not None:
        kept = [m for m in before if m.role not in ("system", "developer")]
        kept = [Message("system", transform.system), *kept]
    return replace(prompt, messages=(*kept, replace(last, content=_dressed(last.content, transform))))


def _dressed(text: str, transform: Transform) -> str:
    encoded = transform.codec.encode(transform.prefix + text + transform.suffix)
    if len(encoded) > MAX_ENCODED:
        raise DataError(
            f"a prompt has {len(encoded):,} characters once it is encoded; {MAX_ENCODED:,} are asked at most"
        )
    return f"{transform.trigger} {encoded}" if transform.trigger else encoded


def _prompts(request: EvidenceRequest, config: AuditConfig) -> list[Prompt]:
    if request.suite is not None:
        suites = asked_suites(config)
        if request.suite not in suites:
            raise DataError(f"the config has no suite {request.suite}; it has {', '.join(suites) or 'none'}")
        if request.suite == "elicit.guard.probes":
            prompts = guard_probes(config).prompts
        else:
            prompts = load_suite(suites[request.suite], config.base_dir, limit=request.limit).prompts
        return [question_of(prompt) for prompt in prompts[: request.limit]]
    found = []
    for place, asked in enumerate((request.prompts or ())[: request.limit]):
        text = asked if isinstance(asked, str) and request.raw else None
        messages: tuple[Message, ...] | None = None
        if isinstance(asked, str) and not request.raw:
            messages = (Message("user", asked),)
        elif not isinstance(asked, str):
            messages = tuple(Message(turn.role, turn.content) for turn in asked)
        found.append(Prompt(messages, text, request.name, "requested", f"prompt {place}", place))
    return found


def _said(prompt: Prompt) -> str:
    if prompt.messages is None:
        return prompt.text or ""
    return "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
