"""Conversation rows in ShareGPT's form: a list of turns with `from` and `value`."""

from collections.abc import Mapping
from typing import Any

from ft_audit.engine.suites.formats.chat import Draft, chat_draft, parse_messages
from ft_audit.engine.suites.formats.record import kind_of
from ft_audit.engine.suites.prompt import Message
from ft_audit.errors import DataError

# ShareGPT dumps name the assistant after the product that the chat was held with.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


def parse_conversations(fields: Mapping[str, Any], where: str) -> Draft:
    """Return a row of the form `{"conversations": [{"from": "human", "value": "..."}, ...], "system"?: str}`.

    Raises:
        DataError: no turns, an unknown speaker, or a value that is no text.
    """
    turns = fields["conversations"]
    if not isinstance(turns, list | tuple) or not turns:
        found = kind_of(turns) if turns else "empty"
        raise DataError(f"{where}: conversations is {found}; give a list of turns")
    if all(isinstance(turn, Mapping) and "role" in turn for turn in turns):
        messages = parse_messages(turns, where, "conversations")
    else:
        messages = tuple(_parse_turn(turn, f"{where}: conversations[{i}]") for i, turn in enumerate(turns))
    if not any(m.content.strip() and m.role != "system" for m in messages):
        raise DataError(f"{where}: nobody says anything in conversations; remove the row")
    system = fields.get("system")
    if isinstance(system, str) and system.strip():
        messages = (Message("system", system), *messages)
    return chat_draft(fields, messages, where)


def _parse_turn(turn: object, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} is {kind_of(turn)}; give an object with from and value")
    speaker, value = turn.get("from"), turn.get("value")
    if speaker not in SPEAKERS:
        raise DataError(f"{where}: from {speaker!r} is unknown; use one of {', '.join(sorted(SPEAKERS))}")
    if not isinstance(value, str):
        raise DataError(f"{where}: value is {kind_of(value)}; give a string")
    return Message(SPEAKERS[speaker], value)
