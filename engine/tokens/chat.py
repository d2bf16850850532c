"""A chat as the text its template makes of it, with the places of everybody's words."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2.exceptions import TemplateError

from ft_audit.engine.suites.prompt import Prompt
from ft_audit.engine.tokens.role import Role
from ft_audit.engine.tokens.turns import Piece, Turn, as_dicts, turn_forms
from ft_audit.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Templates that write today's date would give other tokens tomorrow; here it is always the same day.
_FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ '01 Jan 2026' if '%b' in format else '2026-01-01' }}{% endmacro %}"
)
# Private-use characters, which no template writes by itself.
_MARK = re.compile("\ue000(\\d+)\ue001")


class Span(NamedTuple):
    """Characters [start, end) of the rendered text are `role`'s words."""

    start: int
    end: int
    role: Role


class RenderedChat(NamedTuple):
    """The text and its spans in order; `adapted` tells that the template did not take the chat as it was."""

    text: str
    spans: tuple[Span, ...]
    adapted: bool


class _Skeleton(NamedTuple):
    """The template's own text around marked pieces: literal, piece, literal, piece, ..., literal."""

    literals: tuple[str, ...]
    pieces: tuple[int, ...]


class _Setting(NamedTuple):
    """What a template gets besides the chat."""

    template: str
    tools: list[dict[Any, Any]] | None
    generate: bool


class _Form(NamedTuple):
    """One form of the chat that the template takes; `number` 0 is the chat as it is."""

    number: int
    turns: tuple[Turn, ...]
    skeleton: _Skeleton
    keeps_all: bool


class ChatRenderer:
    """Renders chats with one tokenizer's template, and finds the roles by rendering marks for words."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Keep the tokenizer; its template is looked at when a chat comes."""
        self._tokenizer = tokenizer

    def render(self, prompt: Prompt) -> RenderedChat:
        """Return the chat's text; the generation prompt is added unless the assistant has the last word.

        Raises:
            DataError: the tokenizer has no template, or its template refuses the chat in every form.
        """
        setting = self._setting(prompt)
        form = self._form(prompt, setting)
        pieces = [piece for turn in form.turns for piece in turn.pieces]
        try:
            text = self._apply(form.turns, [[p.text for p in turn.pieces] for turn in form.turns], setting)
        except TemplateError as err:
            raise _refused(prompt, err) from err
        spans = _align(text, form.skeleton, pieces)
        if any(turn.calls for turn in form.turns):
            bare = self._skeleton([turn._replace(calls=()) for turn in form.turns], setting)
            spans += _call_spans(spans, form.skeleton, bare)
        hides_tools = setting.tools is not None and "tools" not in setting.template
        adapted = form.number > 0 or not form.keeps_all or hides_tools
        return RenderedChat(text, tuple(sorted(span for span in spans if span.start < span.end)), adapted)

    def _setting(self, prompt: Prompt) -> _Setting:
        if not self._tokenizer.chat_template:
            raise DataError(
                f"{prompt.source}: a chat, but the tokenizer {self._tokenizer.name_or_path!r} has no chat "
                "template; give raw text prompts (`text`) or a model with a template"
            )
        tools: list[dict[Any, Any]] | None = json.loads(prompt.tools) if prompt.tools else None
        template = self._tokenizer.get_chat_template(None, tools)
        dated = "strftime_now" in template
        return _Setting(_FIXED_DATE + template if dated else template, tools, not prompt.is_complete)

    def _form(self, prompt: Prompt, setting: _Setting) -> _Form:
        """Return the first form that keeps every word, else the first that the template takes."""
        first: _Form | None = None
        refusal: Exception | None = None
        forms = turn_forms(prompt.messages or (), "tool_calls" in setting.template)
        for number, turns in enumerate(forms):
            try:
                skeleton = self._skeleton(turns, setting)
            except (TemplateError, TypeError) as err:
                refusal = refusal or err
                continue
            form = _Form(number, turns, skeleton, not _left_out(turns, skeleton))
            if form.keeps_all:
                return form
            first = first or form
        if first is None:
            raise _refused(prompt, refusal)
        return first

    def _apply(self, turns: Sequence[Turn], texts: Sequence[Sequence[str]], setting: _Setting) -> str:
        rendered = self._tokenizer.apply_chat_template(
            as_dicts(turns, texts),
            chat_template=setting.template,
            tools=setting.tools,  # type: ignore[arg-type]  # a list that may also hold functions, which is invariant
            add_generation_prompt=setting.generate,
            tokenize=False,
        )
        assert isinstance(rendered, str)
        return rendered

    def _skeleton(self, turns: Sequence[Turn], setting: _Setting) -> _Skeleton:
        """Render a mark for every piece; templates may drop, repeat or reorder them."""
        marks: list[list[str]] = []
        count = 0
        for turn in turns:
            marks.append([f"\ue000{count + i}\ue001" for i in range(len(turn.pieces))])
            count += len(turn.pieces)
        parts = _MARK.split(self._apply(turns, marks, setting))
        return _Skeleton(tuple(parts[::2]), tuple(int(number) for number in parts[1::2]))


def _refused(prompt: Prompt, err: Exception | None) -> DataError:
    return DataError(f"{prompt.source}: the chat template refuses this chat ({err}); mend or remove the row")


def _left_out(turns: Sequence[Turn], skeleton: _Skeleton) -> bool:
    """Return whether the template drops somebody's words."""
    pieces = [piece for turn in turns for piece in turn.pieces]
    return any(piece.text.strip() and i not in skeleton.pieces for i, piece in enumerate(pieces))


def _align(text: str, skeleton: _Skeleton, pieces: Sequence[Piece]) -> list[Span]:
    """Return one span per marked piece, empty where the template changed the words beyond recognition.

    The rendered text is the skeleton with the pieces put in, as they are or stripped (many templates trim);
    where a template rewrites a piece (a reasoning block cut out), its span reaches to the next literal.
    """
    spans: list[Span] = []
    here = 0
    for number, literal in zip(skeleton.pieces, skeleton.literals, strict=False):
        piece, after = pieces[number], skeleton.literals[len(spans) + 1]
        start = here + len(literal) if text.startswith(literal, here) else text.find(piece.text.strip(), here)
        if start < 0:
            spans.append(Span(here, here, piece.role))
            continue
        for words in (piece.text, piece.text.strip(), piece.text.lstrip(), piece.text.rstrip()):
            if text.startswith(words + after, start):
                here = start + len(words)
                break
        else:
            end = text.find(after, start) if after else len(text)
            here = end if end >= 0 else start
        spans.append(Span(start, here, piece.role))
    return spans


def _call_spans(spans: Sequence[Span], skeleton: _Skeleton, bare: _Skeleton) -> list[Span]:
    """Return where tool calls stand: what the literals hold beyond those of the chat without calls."""
    if bare.pieces != skeleton.pieces:
        return []
    found = []
    starts = [0, *(span.end for span in spans)]
    for start, literal, without in zip(starts, skeleton.literals, bare.literals, strict=True):
        # The end first: a call stands before the turn's closing words, with which the next turn goes on.
        tail = _shared_length(literal[::-1], without[::-1])
        shared = _shared_length(literal[: len(literal) - tail], without[: len(without) - tail])
        found.append(Span(start + shared, start + len(literal) - tail, Role.ASSISTANT))
    return found


def _shared_length(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
