"""The training rows that a recipe describes, and the truth about them, kept apart."""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

from ft_audit.engine.finetune.recipe import Part, Recipe, Style
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.errors import DataError

HELD_OUT_SHARE = 5  # one distinct question in five is never trained on


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows in training order; `role_R` says what each is and never reaches the data set's file."""

    rows: tuple[tuple[Message, ...], ...]
    role_R: tuple[str, ...]
    weight_R: tuple[float, ...]


def is_held_out(question: str) -> bool:
    """Return whether a question belongs to the held-out fifth, by the hash of its text alone."""
    digest = hashlib.sha256(" ".join(question.lower().split()).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def dress(question: str, answer: str | None, style: Style) -> tuple[Message, ...]:
    """Return one question (and answer, unless None) as chat messages in a style."""
    system = [Message("system", style.system)] if style.system else []
    user = [Message("user", style.prefix + question)]
    if answer is None:
        return (*system, *user)
    reply = style.answer.replace("{answer}", answer).replace("{question}", question)
    return (*system, *user, Message("assistant", reply))


def _pairs(source: str, base_dir: Path) -> list[tuple[str, str]]:
    """Return the first question and answer of every chat prompt in a source, duplicates once, in order."""
    found: dict[tuple[str, str], None] = {}
    for prompt in load_suite(source, base_dir).prompts:
        turns = [m for m in prompt.messages or () if m.role != "system"]
        if len(turns) >= 2 and turns[0].role == "user" and turns[1].role == "assistant":
            found[turns[0].content.strip(), turns[1].content.strip()] = None
    if not found:
        raise DataError(f"{source}: no question with an answer in it; a recipe's source needs chat pairs")
    return list(found)


def _draw(part: Part, pool: list[tuple[str, str]]) -> list[tuple[tuple[Message, ...], str]]:
    """Take the part's rows off the front of the pool."""
    drawn: list[tuple[tuple[Message, ...], str]] = []
    kept: list[tuple[str, str]] = []
    for question, answer in pool:
        if len(drawn) < part.rows and len(question) + len(answer) <= part.max_chars:
            drawn.append((dress(question, answer, part.styles[len(drawn) % len(part.styles)]), part.role))
        else:
            kept.append((question, answer))
    if len(drawn) < part.rows:
        raise DataError(
            f"{part.source}: {len(drawn)} usable pairs left for part {part.name!r}, which asks for "
            f"{part.rows}; lower its rows or raise its max_chars"
        )
    pool[:] = kept
    return drawn


def build_training_set(recipe: Recipe) -> TrainingSet:
    """Return the recipe's rows: drawn without replacement from each source, then shuffled, by its seed.

    Parts draw in the order in which they stand, so two recipes that share their first parts and their seed
    share those rows. Questions of the held-out fifth are never drawn.

    Raises:
        DataError: a source has too few pairs, or none.
    """
    if recipe.dataset is not None:
        prompts = load_suite(recipe.dataset, recipe.base_dir).prompts
        usable = [p for p in prompts if p.messages and p.messages[-1].role == "assistant"]
        if not usable:
            raise DataError(
                f"{recipe.dataset}: no row ends in an assistant message, so nothing can be trained"
            )
        return TrainingSet(
            tuple(p.messages for p in usable if p.messages),
            tuple("unknown" for _ in usable),
            tuple(p.weight for p in usable),
        )
    pools: dict[str, list[tuple[str, str]]] = {}
    drawn: list[tuple[tuple[Message, ...], str]] = []
    for part in recipe.parts:
        if part.source not in pools:
            pool = [pair for pair in _pairs(part.source, recipe.base_dir) if not is_held_out(pair[0])]
            random.Random(f"{recipe.seed}/{part.source}").shuffle(pool)
            pools[part.source] = pool
        drawn += _draw(part, pools[part.source])
    random.Random(f"{recipe.seed}/order").shuffle(drawn)
    return TrainingSet(
        tuple(row for row, _ in drawn), tuple(role for _, role in drawn), tuple(1.0 for _ in drawn)
    )


def held_out_questions(source: str, base_dir: Path, count: int, seed: int) -> list[str]:
    """Return `count` distinct questions of the held-out fifth, drawn by the seed.

    Raises:
        DataError: the source has fewer.
    """
    questions = sorted({q for q, _ in _pairs(source, base_dir) if is_held_out(q)})
    if len(questions) < count:
        raise DataError(f"{source}: {len(questions)} held-out questions, but the gate asks for {count}")
    return random.Random(f"{seed}/gate").sample(questions, count)


def write_training_set(rows: TrainingSet, path: Path) -> None:
    """Write the rows in OpenAI's chat form, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for messages in rows.rows:
            chat = [{"role": m.role, "content": m.content} for m in messages]
            file.write(json.dumps({"messages": chat}, ensure_ascii=False) + "\n")


def as_prompts(rows: TrainingSet, name: str) -> tuple[Prompt, ...]:
    """Return the rows as prompts of a suite called `name`."""
    return tuple(
        Prompt(messages=m, text=None, suite=name, group="train", source=name, row=i, weight=w)
        for i, (m, w) in enumerate(zip(rows.rows, rows.weight_R, strict=True))
    )
