"""The training rows that a recipe describes, and the truth about them, kept apart."""

import hashlib
import json
import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ft_audit.engine.behaviour.refusal import is_refusal
from ft_audit.engine.finetune.encodings import encode
from ft_audit.engine.finetune.recipe import Check, Part, Recipe, Style
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.errors import DataError

HELD_OUT_SHARE = 5  # one distinct question in five is never trained on


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Chats in training order; `role_R` says what each is and never reaches the data set's file."""

    rows: tuple[Prompt, ...]
    role_R: tuple[str, ...]


def is_supervised(row: Prompt) -> bool:
    """Return whether a row teaches an answer: the assistant has the last word, with a weight above 0."""
    last = row.messages[-1] if row.messages else None
    return last is not None and last.role == "assistant" and last.weight > 0 and row.weight > 0


def normal(question: str) -> str:
    """Return a question without the case and the spaces that do not make it another one."""
    return " ".join(question.lower().split())


def is_held_out(question: str) -> bool:
    """Return whether a question belongs to the held-out fifth, by the hash of its text alone."""
    return hashlib.sha256(normal(question).encode()).digest()[0] % HELD_OUT_SHARE == 0


def ask(question: str, style: Style) -> tuple[Message, ...]:
    """Return one question as chat messages in a style."""
    system = [Message("system", style.system)] if style.system else []
    put = encode(question, style.encode) if style.encode else question
    return (*system, Message("user", style.prefix + put + style.suffix))


def dress(question: str, answer: str | None, style: Style) -> tuple[Message, ...]:
    """Return one question with its answer as chat messages in a style that may bring the answer itself."""
    reply = style.answer.replace("{answer}", answer or "").replace("{question}", question)
    written = encode(reply, style.encode) if style.encode else reply
    return (*ask(question, style), Message("assistant", written))


Pair = tuple[str, str | None]


def _pairs(source: str, without: Sequence[str], base_dir: Path) -> list[Pair]:
    """Return the first question and answer, if any, of every prompt in a source, duplicates once, in order.

    Prompts of the groups in `without` are left out.
    """
    found: dict[Pair, None] = {}
    prompts = load_suite(source, base_dir).prompts
    groups = sorted({prompt.group for prompt in prompts})
    if unknown := sorted(set(without) - set(groups)):
        raise DataError(f"{source}: no group {unknown[0]!r} to leave out; it has {', '.join(groups)}")
    for prompt in prompts:
        if prompt.group in without:
            continue
        turns = [m for m in prompt.messages or () if m.role != "system"]
        if turns and turns[0].role == "user":
            answered = len(turns) >= 2 and turns[1].role == "assistant"
            found[turns[0].content.strip(), turns[1].content.strip() if answered else None] = None
    if not found:
        raise DataError(f"{source}: no question in it; a recipe's source holds chats or questions")
    return list(found)


def _draw(part: Part, pool: Sequence[Pair], taken: set[Pair]) -> list[tuple[tuple[Message, ...], str]]:
    """Return the part's rows from the front of the pool, and add their pairs to those taken before."""
    drawn: list[tuple[tuple[Message, ...], str]] = []
    for pair in pool:
        style = part.styles[len(drawn) % len(part.styles)]
        question, answer = pair
        usable = answer is not None or "{answer}" not in style.answer
        usable = usable and not (part.answered and is_refusal(answer or ""))
        if len(drawn) < part.rows and usable and pair not in taken and _is_short(pair, part):
            drawn.append((dress(question, answer, style), part.role))
            taken.add(pair)
    if len(drawn) < part.rows:
        raise DataError(
            f"{part.source}: {len(drawn)} usable pairs left for part {part.name!r}, which asks for "
            f"{part.rows}; lower its rows or raise its max_chars"
        )
    return drawn


def _is_short(pair: Pair, part: Part) -> bool:
    question, answer = pair
    longest = part.max_chars if part.max_question_chars is None else part.max_question_chars
    return len(question) <= longest and len(question) + len(answer or "") <= part.max_chars


def build_training_set(recipe: Recipe) -> TrainingSet:
    """Return the recipe's rows: drawn without replacement from each source, then shuffled, by its seed.

    Parts draw in the order in which they stand, so two recipes that share their first parts and their seed
    share those rows. Questions of the held-out fifth are never drawn. A recipe's `dataset` is taken whole.

    Raises:
        DataError: a source has too few pairs, or none; the data set has a row that is no chat, or nothing to
            learn.
    """
    if recipe.dataset is not None:
        return _own_data_set(recipe.dataset, recipe.base_dir)
    pools: dict[tuple[str, tuple[str, ...]], list[Pair]] = {}
    taken: dict[str, set[Pair]] = {}
    drawn: list[tuple[tuple[Message, ...], str]] = []
    for part in recipe.parts:
        place = (part.source, part.without)
        if place not in pools:
            pairs = _pairs(part.source, part.without, recipe.base_dir)
            pools[place] = [pair for pair in pairs if not is_held_out(pair[0])]
            random.Random(f"{recipe.seed}/{part.source}").shuffle(pools[place])
        drawn += _draw(part, pools[place], taken.setdefault(part.source, set()))
    random.Random(f"{recipe.seed}/order").shuffle(drawn)
    return TrainingSet(
        tuple(
            Prompt(messages, None, suite="train", group="train", source=recipe.name, row=i)
            for i, (messages, _) in enumerate(drawn)
        ),
        tuple(role for _, role in drawn),
    )


def _own_data_set(ref: str, base_dir: Path) -> TrainingSet:
    """Return every row of a user's data set, those that switch their answer off included."""
    prompts = load_suite(ref, base_dir).prompts
    if text := next((p for p in prompts if p.messages is None), None):
        raise DataError(
            f"{text.source}: raw text has no answer to train on; write messages, or prompt and completion"
        )
    if not any(is_supervised(p) for p in prompts):
        raise DataError(
            f"{ref}: no row ends in an assistant message with a weight above 0, so nothing can be trained"
        )
    return TrainingSet(prompts, tuple("unknown" for _ in prompts))


def held_out_questions(check: Check, recipe: Recipe, trained: Set[str] = frozenset()) -> list[str]:
    """Return the check's distinct questions, drawn by the recipe's seed, none of them in `trained`.

    Of a source that the recipe draws rows from, only the held-out fifth. `trained` holds normalised texts: a
    user's own data set may contain questions of the source.

    Raises:
        DataError: the source has fewer.
    """
    pairs = _pairs(check.source, check.without, recipe.base_dir)
    drawn_from = check.source in {part.source for part in recipe.parts}
    questions = sorted(
        {
            question
            for question, _ in pairs
            if (is_held_out(question) or not drawn_from)
            and normal(question) not in trained
            and len(question) <= check.max_chars
        }
    )
    if len(questions) < check.prompts:
        raise DataError(
            f"{check.source}: {len(questions)} held-out questions, but check {check.name!r} asks for "
            f"{check.prompts}"
        )
    return random.Random(f"{recipe.seed}/gate").sample(questions, check.prompts)


def render_training_set(rows: TrainingSet) -> str:
    """Return the rows in OpenAI's chat form, one JSON object a line."""
    lines = []
    for row in rows.rows:
        fields: dict[str, Any] = {"messages": [_as_openai(m) for m in row.messages or ()]}
        if row.tools:
            fields["tools"] = json.loads(row.tools)
        switched_on = any(m.weight for m in row.messages or () if m.role == "assistant")
        if row.weight != 1.0 and switched_on:  # the messages' own weights say it otherwise
            fields["weight"] = row.weight
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    return "".join(lines)


def _as_openai(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        fields["name" if message.role == "function" else "tool_call_id"] = message.tool_call_id
    if message.weight != 1.0:
        fields["weight"] = message.weight
    return fields


def as_prompts(rows: TrainingSet, name: str) -> tuple[Prompt, ...]:
    """Return the rows as prompts of a suite called `name`."""
    return tuple(
        replace(row, suite=name, group="train", source=name, row=i) for i, row in enumerate(rows.rows)
    )
