"""Chats rendered by a template that nobody vouches for: in a process whose time and memory end."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from ft_audit.engine.tokens.apart import Apart, Overrun
from ft_audit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MEMORY = 1 << 30
# Seconds of a processor that a template may take before it has rendered anything, and more for every chat; a
# real one takes a millisecond.
FIRST_SECONDS, SECONDS = 10.0, 0.05
# How much longer than a chat its text may be.
TIMES_THE_CHAT, SPARE_CHARACTERS = 16, 1 << 20


def render_apart(tokenizer: "PreTrainedTokenizerBase", ref: str) -> None:
    """Have `tokenizer` render its chats in a process of its own from now on, whoever asks for them."""
    apart: Any = ChatsApart(tokenizer, ref)
    tokenizer.apply_chat_template = apart  # type: ignore[method-assign]


class ChatsApart:
    """What stands for a tokenizer's `apply_chat_template`: the same text, or a refusal."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ref: str) -> None:
        """Take the tokenizer whose template it is, and the model's reference for messages."""
        self._tokenizer, self._ref = tokenizer, ref
        self._process = Apart("render", MEMORY)
        self._left = FIRST_SECONDS
        self._overrun: Overrun | None = None

    def __call__(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
    ) -> Any:
        """Return the chat's text, or its ids with `tokenize`.

        Raises:
            TemplateError: the template refuses the chat, or does what a template may not.
            ModelError: it takes too much time or memory, or writes too much.
        """
        question = {
            "chat": [{k: v for k, v in turn.items() if v is not None} for turn in conversation],
            "tools": tools,
            "template": self._tokenizer.get_chat_template(chat_template, tools),  # type: ignore[arg-type]
            "generate": add_generation_prompt,
            "variables": self._tokenizer.special_tokens_map,
        }
        text = self._ask(question)
        if not tokenize:
            return text
        encoded = self._tokenizer(text, add_special_tokens=False)
        return encoded if return_dict else encoded["input_ids"]

    def _ask(self, question: dict[str, Any]) -> str:
        said = len(json.dumps([question["chat"], question["tools"]]))
        question["characters"] = TIMES_THE_CHAT * said + SPARE_CHARACTERS
        self._left = min(FIRST_SECONDS, self._left + SECONDS)
        try:
            if self._overrun is not None:
                raise self._overrun
            if self._left <= 0:
                raise Overrun(f"takes more than {SECONDS:g} s for each on average")
            answer = self._process.ask(question, self._left)
        except Overrun as overrun:
            self._overrun = overrun
            raise ModelError(
                f"model {self._ref!r}: rendering a chat by its chat template {overrun}; give the base's"
            ) from overrun
        self._left -= answer["seconds"]
        if "refused" in answer:
            raise TemplateError(answer["refused"])
        return str(answer["text"])

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy gets a process of its own.
        return ChatsApart, (self._tokenizer, self._ref)
