"""What a row means: its columns choose the shape, and the shape becomes a prompt."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ft_audit.engine.suites.formats.chat import Draft, parse_chat, row_weight
from ft_audit.engine.suites.formats.completion import QUESTIONS, parse_completion
from ft_audit.engine.suites.formats.conversations import parse_conversations
from ft_audit.engine.suites.formats.preference import parse_chosen_rejected, parse_openai_preference
from ft_audit.engine.suites.formats.record import Record, kind_of
from ft_audit.engine.suites.prompt import Prompt
from ft_audit.errors import DataError

# The first column that a row has decides. Preference columns come before "messages" and "prompt", which such
# rows may hold as well.
SHAPES: tuple[tuple[str, Callable[[Mapping[str, Any], str], Draft]], ...] = (
    ("preferred_output", parse_openai_preference),
    ("non_preferred_output", parse_openai_preference),
    ("chosen", parse_chosen_rejected),
    ("rejected", parse_chosen_rejected),
    ("messages", parse_chat),
    ("conversations", parse_conversations),
    *((name, parse_completion) for name in QUESTIONS),
)
COLUMNS = (*(name for name, _ in SHAPES), "text")


def prompt_from_record(record: Record) -> Prompt:
    """Return the record as a prompt, tagged with where it came from.

    Raises:
        DataError: naming the file, the line, what is wrong and the fix.
    """
    if isinstance(record.fields, DataError):
        raise record.fields
    fields: Mapping[str, Any] = record.fields
    shape = next((parse for name, parse in SHAPES if name in fields), None)
    if shape is not None:
        draft = shape(fields, record.where)
    elif "text" in fields:
        draft = _parse_text(fields, record.where)
    else:
        raise DataError(f"{record.where}: {_unknown_columns(fields)}")
    prompt = Prompt(
        messages=draft.messages,
        text=draft.text,
        suite=record.suite,
        group=_group(fields),
        source=record.source,
        row=record.row,
        weight=draft.weight,
        tools=draft.tools,
        rejected=draft.rejected,
    )
    _refuse_halves(prompt, record.where)
    return prompt


def _refuse_halves(prompt: Prompt, where: str) -> None:
    """Refuse half a surrogate pair: JSON can write one alone, and no tokenizer, hash or file takes it."""
    for text in _strings(prompt):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as err:
                half = f"\\u{ord(text[err.start]):04x}"
                raise DataError(
                    f"{where}: {half} is half of a character; write both halves, or remove it"
                ) from err


def _strings(prompt: Prompt) -> Iterator[str]:
    yield from (prompt.text or "", prompt.group, prompt.tools)
    for message in (*(prompt.messages or ()), *(prompt.rejected or ())):
        yield from (message.role, message.content, message.tool_call_id)
        for call in message.tool_calls:
            yield from (call.name, call.arguments, call.call_id)


def _group(fields: Mapping[str, Any]) -> str:
    named = (fields.get(name) for name in ("group", "category"))
    return next((value for value in named if isinstance(value, str) and value), "default")


def _parse_text(fields: Mapping[str, Any], where: str) -> Draft:
    text = fields["text"]
    if not isinstance(text, str) or not text.strip():
        found = kind_of(text) if text and not isinstance(text, str) else "empty"
        raise DataError(f"{where}: text is {found}; give a text or remove the row")
    return Draft(text=text, weight=row_weight(fields, (), where))


def _unknown_columns(fields: Mapping[str, Any]) -> str:
    forms = "messages, conversations, prompt (and completion), chosen and rejected, or text"
    if not fields:
        return f"the row is empty; give it {forms}"
    found = []
    for name in sorted(fields):
        near = difflib.get_close_matches(name, COLUMNS, n=1)
        found.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return f"no known columns in {', '.join(found)}; a row has {forms}"
