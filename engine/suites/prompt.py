"""The nouns of a suite: a message, a prompt (or training row) with its tags, and the suite itself."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call in an assistant message; `arguments` is JSON text, as the model writes it."""

    name: str
    arguments: str
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat; `weight` is OpenAI's switch for whether an assistant turn is trained on."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat (`messages`) or raw text (`text`), exactly one of them, with where it came from.

    A chat that ends in an assistant message is complete; any other is a question, and gets the generation
    prompt when it is tokenized. `row` counts the source's readable rows from 0; `source` names file and line.
    `tools` is the JSON list of tool definitions that the row offered, `rejected` the worse answer of a
    preference pair: both are carried and hashed. The evidence runs over `messages`, which holds the preferred
    answer.
    """

    messages: tuple[Message, ...] | None
    text: str | None
    suite: str
    group: str
    source: str
    row: int
    weight: float = 1.0
    tools: str = ""
    rejected: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        assert (self.messages is None) != (self.text is None), "a prompt is a chat or a text"

    @property
    def is_complete(self) -> bool:
        """Whether the prompt already holds its answer (raw text always does)."""
        return self.messages is None or self.messages[-1].role == "assistant"

    @property
    def system(self) -> str | None:
        """The system prompt (several are joined by a blank line), or None."""
        parts = [m.content for m in self.messages or () if m.role in ("system", "developer")]
        return "\n\n".join(parts) if parts else None

    @property
    def user_texts(self) -> tuple[str, ...]:
        """What the user says, turn by turn; raw text counts as one turn."""
        if self.messages is None:
            return (self.text or "",)
        return tuple(m.content for m in self.messages if m.role == "user")


def _plain_messages(messages: tuple[Message, ...]) -> list[list[Any]]:
    plain: list[list[Any]] = []
    for m in messages:
        calls = [[call.name, call.arguments, call.call_id] for call in m.tool_calls]
        plain.append([m.role, m.content, calls, m.tool_call_id, m.weight])
    return plain


@dataclass(frozen=True, slots=True)
class PromptSuite:
    """Prompts in their order; `num_skipped` counts what a published corpus held and could not be read."""

    name: str
    prompts: tuple[Prompt, ...]
    num_skipped: int = 0

    @property
    def sha256(self) -> str:
        """The hash of what the prompts say and how they are grouped, not of names or places on a disk."""
        digest = hashlib.sha256()
        for prompt in self.prompts:
            plain: list[Any] = [
                _plain_messages(prompt.messages) if prompt.messages is not None else prompt.text,
                prompt.group,
                prompt.row,
                prompt.weight,
                prompt.tools,
                _plain_messages(prompt.rejected) if prompt.rejected is not None else None,
            ]
            digest.update(json.dumps(plain, ensure_ascii=True, separators=(",", ":")).encode())
            digest.update(b"\n")
        return digest.hexdigest()
