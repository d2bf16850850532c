"""Preference pairs, in OpenAI's form and in the common one with `chosen` and `rejected`."""

import re
from collections.abc import Mapping
from typing import Any

from ft_audit.engine.suites.formats.chat import Draft, parse_messages, parse_tools, row_weight
from ft_audit.engine.suites.formats.completion import QUESTIONS, as_messages, with_system
from ft_audit.engine.suites.formats.record import kind_of
from ft_audit.engine.suites.prompt import Message
from ft_audit.errors import DataError

# Dialogues written as one string, as in the helpful-harmless sets: "\n\nHuman: ...\n\nAssistant: ...".
_SPOKEN = re.compile(r"\n\n(Human|Assistant): ?")


def parse_openai_preference(fields: Mapping[str, Any], where: str) -> Draft:
    """Return `{"input": {"messages", "tools"?}, "preferred_output", "non_preferred_output"}`.

    Raises:
        DataError: a part that is missing or no list of messages.
    """
    given = fields.get("input")
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: input is {kind_of(given)}; give an object with messages")
    for name in ("preferred_output", "non_preferred_output"):
        if name not in fields:
            raise DataError(f"{where}: {name} is missing; a preference row needs both outputs")
    question = parse_messages(given.get("messages"), where, "input.messages")
    chosen = parse_messages(fields["preferred_output"], where, "preferred_output")
    rejected = parse_messages(fields["non_preferred_output"], where, "non_preferred_output")
    return _pair(fields, question + chosen, question + rejected, parse_tools(given, where), where)


def parse_chosen_rejected(fields: Mapping[str, Any], where: str) -> Draft:
    """Return `{"prompt"?, "chosen", "rejected"}`; the answers are strings, messages or whole conversations.

    Raises:
        DataError: a part that is missing, empty or of another kind.
    """
    name = next((name for name in QUESTIONS if name in fields), None)
    question = as_messages(fields[name], "user", f"{where}: {name}") if name is not None else ()
    sides = []
    for side in ("chosen", "rejected"):
        if side not in fields:
            raise DataError(f"{where}: {side} is missing; a preference row needs both chosen and rejected")
        sides.append(_join(question, fields[side], f"{where}: {side}", fields))
    return _pair(fields, sides[0], sides[1], parse_tools(fields, where), where)


def _join(
    question: tuple[Message, ...], answer: object, where: str, fields: Mapping[str, Any]
) -> tuple[Message, ...]:
    if isinstance(answer, str) and not question:
        messages = _spoken(answer, where)
    else:
        messages = as_messages(answer, "assistant", where, may_be_empty=True)
        # A list that opens with the user's turn repeats the prompt; only an answer is put behind it.
        if question and messages[0].role in ("assistant", "tool"):
            messages = question + messages
    return with_system(fields, messages)


def _spoken(dialogue: str, where: str) -> tuple[Message, ...]:
    parts = _SPOKEN.split(dialogue if dialogue.startswith("\n\n") else f"\n\n{dialogue}")
    if len(parts) < 3 or parts[0].strip():
        raise DataError(f"{where} is a string without a prompt; add a prompt column or give messages")
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], text) for who, text in zip(parts[1::2], parts[2::2], strict=True))


def _pair(
    fields: Mapping[str, Any],
    chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
    tools: str,
    where: str,
) -> Draft:
    return Draft(messages=chosen, rejected=rejected, tools=tools, weight=row_weight(fields, chosen, where))
