"""A chat in the forms that templates accept, from as it is to ever plainer ones."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ft_audit.engine.suites.prompt import Message, ToolCall
from ft_audit.engine.tokens.role import Role

# What a tool returns reaches the model from outside, as the user's words do.
ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.USER,
    "function": Role.USER,
}


class Piece(NamedTuple):
    """Some text of a turn, and whose it is."""

    text: str
    role: Role


class Turn(NamedTuple):
    """One turn as a template gets it: its pieces stand in `content` with a blank line between them."""

    role: str
    pieces: tuple[Piece, ...]
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


def turn_forms(messages: Sequence[Message], knows_tools: bool) -> Iterator[tuple[Turn, ...]]:
    """Yield the chat as it is, then forms that stricter templates take, each keeping every word.

    Known strictness: no tool messages, no `developer`, roles must alternate, no system turn, the user first.
    A template that does not know tool calls gets them as JSON text from the start.
    """
    turns = tuple(_as_turn(message, knows_tools) for message in messages)
    yield turns
    names = {"developer": "system", "function": "tool"}
    renamed = tuple(turn._replace(role=names.get(turn.role, turn.role)) for turn in turns)
    yield renamed
    plain = _merged([_without_tools(turn) for turn in renamed])
    yield plain
    folded = _merged([turn._replace(role="user") if turn.role == "system" else turn for turn in plain])
    yield folded
    if folded[0].role == "assistant":
        yield (Turn("user", (Piece("", Role.USER),)), *folded)


def as_dicts(turns: Sequence[Turn], texts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return the turns as a template's input, with `texts` in place of their pieces."""
    dicts: list[dict[str, Any]] = []
    for turn, pieces in zip(turns, texts, strict=True):
        item: dict[str, Any] = {"role": turn.role, "content": "\n\n".join(pieces)}
        if turn.calls:
            item["tool_calls"] = [_call_dict(call) for call in turn.calls]
        if turn.call_id:
            item["tool_call_id"] = item["name"] = turn.call_id
        dicts.append(item)
    return dicts


def _as_turn(message: Message, knows_tools: bool) -> Turn:
    turn = Turn(
        message.role, (Piece(message.content, ROLES[message.role]),), message.tool_calls, message.tool_call_id
    )
    return turn if knows_tools else _without_calls(turn)


def _without_calls(turn: Turn) -> Turn:
    if not turn.calls:
        return turn
    written = [{"name": call.name, "arguments": _arguments(call)} for call in turn.calls]
    pieces = [piece for piece in turn.pieces if piece.text]
    pieces.append(Piece("\n".join(json.dumps(call, ensure_ascii=False) for call in written), Role.ASSISTANT))
    return turn._replace(pieces=tuple(pieces), calls=())


def _without_tools(turn: Turn) -> Turn:
    plain = _without_calls(turn)
    return plain._replace(role="user", call_id="") if plain.role == "tool" else plain


def _merged(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Join neighbours of one role."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role and not merged[-1].calls and not turn.calls:
            merged[-1] = merged[-1]._replace(pieces=merged[-1].pieces + turn.pieces)
        else:
            merged.append(turn)
    return tuple(merged)


def _arguments(call: ToolCall) -> object:
    try:
        parsed: object = json.loads(call.arguments)
    except json.JSONDecodeError:
        return call.arguments  # a model may write what is no JSON; it is shown as written
    return parsed


def _call_dict(call: ToolCall) -> dict[str, Any]:
    # Templates write the arguments with their own `tojson`, so they get the object and not its text.
    function = {"name": call.name, "arguments": _arguments(call)}
    return {"id": call.call_id, "type": "function", "function": function}
