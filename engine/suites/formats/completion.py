"""Prompt and completion rows, under the names that data sets give the two halves."""

from collections.abc import Mapping
from typing import Any

from ft_audit.engine.suites.formats.chat import Draft, chat_draft, parse_messages
from ft_audit.engine.suites.formats.record import kind_of
from ft_audit.engine.suites.prompt import Message
from ft_audit.errors import DataError

# The last two are how StrongREJECT and HarmBench call it.
QUESTIONS = ("prompt", "instruction", "question", "query", "forbidden_prompt", "Behavior")
ANSWERS = ("completion", "response", "output", "answer")


def parse_completion(fields: Mapping[str, Any], where: str) -> Draft:
    """Return a row such as `{"prompt", "completion"}`, `{"prompt", "response"}`, `{"instruction", "output"}`.

    Both halves are a string (one chat turn each: the models audited here are chat models) or a list of chat
    messages. Without an answer the row is a question. `system` or `system_prompt` comes first; what stands in
    `input` beside an instruction follows it.

    Raises:
        DataError: a half that is neither a string nor messages, or an empty question.
    """
    question = next(name for name in QUESTIONS if name in fields)
    messages = as_messages(fields[question], "user", f"{where}: {question}")
    context = fields.get("input")
    if question == "instruction" and isinstance(context, str) and context.strip():
        messages = (Message("user", f"{messages[-1].content}\n\n{context}"),)
    answer = next((name for name in ANSWERS if name in fields), None)
    if answer is not None:
        messages += as_messages(fields[answer], "assistant", f"{where}: {answer}", may_be_empty=True)
    messages = with_system(fields, messages)
    return chat_draft(fields, messages, where)


def as_messages(value: object, role: str, where: str, may_be_empty: bool = False) -> tuple[Message, ...]:
    """Return a string as one message of `role`, or a list as the messages it holds."""
    if isinstance(value, list | tuple):
        return parse_messages(value, where, "messages")
    if not isinstance(value, str):
        raise DataError(f"{where} is {kind_of(value)}; give a string or a list of messages")
    if not value.strip() and not may_be_empty:
        raise DataError(f"{where} is empty; give it a text or remove the row")
    return (Message(role, value),)


def with_system(fields: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages behind the row's own system prompt, if it has one and they do not."""
    system = fields.get("system_prompt") or fields.get("system")
    if not isinstance(system, str) or not system.strip() or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)
