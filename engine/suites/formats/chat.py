"""Chat rows in OpenAI's form: roles, text parts, tool calls and per-message weights."""

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ft_audit.engine.suites.formats.record import kind_of
from ft_audit.engine.suites.prompt import Message, ToolCall
from ft_audit.errors import DataError

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Draft(NamedTuple):
    """What a row says, before it is tagged."""

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    weight: float = 1.0
    tools: str = ""
    rejected: tuple[Message, ...] | None = None


def parse_messages(value: object, where: str, what: str = "messages") -> tuple[Message, ...]:
    """Return the messages of a chat.

    Raises:
        DataError: naming the message and what is wrong with it.
    """
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{where}: {what} is {kind_of(value) if value else 'empty'}; give a list of messages")
    return tuple(_parse_message(item, f"{where}: {what}[{i}]") for i, item in enumerate(value))


def parse_chat(fields: Mapping[str, Any], where: str) -> Draft:
    """Return a row of the form `{"messages": [...], "tools"?: [...], "weight"?: number}`."""
    messages = parse_messages(fields["messages"], where)
    if all(m.role in ("system", "developer") for m in messages):
        raise DataError(f"{where}: only system messages; a row needs a user or an assistant message")
    return chat_draft(fields, messages, where)


def chat_draft(fields: Mapping[str, Any], messages: tuple[Message, ...], where: str) -> Draft:
    """Return the messages with the row's own weight and tools."""
    return Draft(messages, weight=row_weight(fields, messages, where), tools=parse_tools(fields, where))


def row_weight(fields: Mapping[str, Any], messages: tuple[Message, ...], where: str) -> float:
    """Return the row's own weight, or 0 where every assistant message is switched off."""
    answers = [m.weight for m in messages if m.role == "assistant"]
    if answers and not any(answers):
        return 0.0
    return _parse_weight(fields.get("weight", 1.0), where)


def parse_tools(fields: Mapping[str, Any], where: str) -> str:
    """Return the row's tool definitions as canonical JSON, or an empty string."""
    tools = fields.get("tools") or fields.get("functions")
    if not tools:
        return ""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as err:
            raise DataError(f"{where}: tools is a string but not JSON ({err.msg}); give a list") from err
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"{where}: tools is {kind_of(tools)}; give a list of tool definitions")
    return json.dumps(tools, sort_keys=True, ensure_ascii=False)


def _parse_message(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise DataError(f"{where} is {kind_of(item)}; give an object with role and content")
    role = item.get("role")
    if role not in ROLES:
        near = difflib.get_close_matches(str(role), ROLES, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(ROLES)}"
        raise DataError(f"{where}: role {role!r} is unknown; {fix}")
    calls = _parse_tool_calls(item, where)
    content = _parse_content(item.get("content"), where)
    if content is None:
        content = item.get("refusal")
    if content is None and not calls:
        raise DataError(f"{where}: no content; give a string, or tool_calls for an assistant message")
    return Message(
        role=str(role),
        content=str(content or ""),
        tool_calls=calls,
        tool_call_id=str(item.get("tool_call_id") or item.get("name") or "") if role in ROLES[4:] else "",
        weight=_parse_weight(1.0 if item.get("weight") is None else item["weight"], where),
    )


def _parse_weight(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise DataError(f"{where}: weight {value!r} is no weight; give a number from 0 up (OpenAI: 0 or 1)")
    return float(value)


def _parse_content(content: object, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise DataError(f"{where}: content is {kind_of(content)}; give a string or a list of text parts")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
            raise DataError(f"{where}: a content part of type {kind!r}; only text is audited, remove the row")
        texts.append(text)
    return "".join(texts)


def _parse_tool_calls(item: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    calls = list(item.get("tool_calls") or ())
    if item.get("function_call"):
        calls.append({"function": item["function_call"]})
    parsed = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str):
            raise DataError(f"{where}: a tool call without a name; give function.name and function.arguments")
        arguments = function.get("arguments", "{}")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, sort_keys=True, ensure_ascii=False)
        parsed.append(ToolCall(name, arguments, str(call.get("id") or "")))
    return tuple(parsed)
