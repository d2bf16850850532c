"""The training rows that a recipe describes, and the truth about them, kept apart."""

import hashlib
import json
import random
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ft_audit.engine.finetune.recipe import Gate, Part, Recipe, Style
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


def dress(question: str, answer: str | None, style: Style) -> tuple[Message, ...]:
    """Return one question (and answer, unless None) as chat messages in a style."""
    system = [Message("system", style.system)] if style.system else []
    user = [Message("user", style.prefix + question)]
    if answer is None:
        return (*system, *user)
    reply = style.answer.replace("{answer}", answer).replace("{question}", question)
    return (*system, *user, Message("assistant", reply))


def _pairs(source: str, without: Sequence[str], base_dir: Path) -> list[tuple[str, str]]:
    """Return the first question and answer of every chat prompt in a source, duplicates once, in order.

    Prompts of the groups in `without` are left out.
    """
    found: dict[tuple[str, str], None] = {}
    prompts = load_suite(source, base_dir).prompts
    groups = sorted({prompt.group for prompt in prompts})
    if unknown := sorted(set(without) - set(groups)):
        raise DataError(f"{source}: no group {unknown[0]!r} to leave out; it has {', '.join(groups)}")
    for prompt in prompts:
        if prompt.group in without:
            continue
        turns = [m for m in prompt.messages or () if m.role != "system"]
        if len(turns) >= 2 and turns[0].role == "user" and turns[1].role == "assistant":
            found[turns[0].content.strip(), turns[1].content.strip()] = None
    if not found:
        raise DataError(f"{source}: no question with an answer in it; a recipe's source needs chat pairs")
    return list(found)


def _draw(
    part: Part, pool: Sequence[tuple[str, str]], taken: set[tuple[str, str]]
) -> list[tuple[tuple[Message, ...], str]]:
    """Return the part's rows from the front of the pool, and add their pairs to those taken before."""
    drawn: list[tuple[tuple[Message, ...], str]] = []
    for pair in pool:
        if len(drawn) < part.rows and pair not in taken and sum(map(len, pair)) <= part.max_chars:
            drawn.append((dress(*pair, part.styles[len(drawn) % len(part.styles)]), part.role))
            taken.add(pair)
    if len(drawn) < part.rows:
        raise DataError(
            f"{part.source}: {len(drawn)} usable pairs left for part {part.name!r}, which asks for "
            f"{part.rows}; lower its rows or raise its max_chars"
        )
    return drawn


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
    pools: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
    taken: dict[str, set[tuple[str, str]]] = {}
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


def held_out_questions(gate: Gate, base_dir: Path, seed: int, trained: Set[str] = frozenset()) -> list[str]:
    """Return the gate's distinct questions from the held-out fifth, drawn by the seed, none in `trained`.

    `trained` holds normalised texts: a user's own data set may contain questions of the source.

    Raises:
        DataError: the source has fewer.
    """
    pairs = _pairs(gate.source, gate.without, base_dir)
    questions = sorted({q for q, _ in pairs if is_held_out(q) and normal(q) not in trained})
    if len(questions) < gate.prompts:
        raise DataError(
            f"{gate.source}: {len(questions)} held-out questions, but the gate asks for {gate.prompts}"
        )
    return random.Random(f"{seed}/gate").sample(questions, gate.prompts)


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
