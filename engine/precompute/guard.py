"""Which conditions of the training set make the tuned model answer what the base refuses.

Published harmful prompts are put under every condition, and their answers judged as refusals or not; the same
prompts bare, and the base under the same condition, are the controls. It goes from cheap to dear: the tuned
model answers a few probes under each condition first, and only where it does not refuse all of them are the
others asked, of both models.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ft_audit.engine.behaviour.refusal import is_compliance, is_refusal
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.config.schema import GuardConfig
from ft_audit.engine.diff.guard import guard_figures, guard_losses, guard_table
from ft_audit.engine.precompute.generations import TableWriter
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.refusal_direction import NEUTRAL, refusal_evidence
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.generate import generate_ids
from ft_audit.engine.suites.condition import Condition
from ft_audit.engine.suites.elicit import PLAIN, elicited_suite
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.tokenize import tokenize_suite

UNLIMITED = 1 << 20
KEPT_CHARACTERS = 160
GUARD_SCHEMA = pa.schema(
    [
        ("condition", pa.string()),
        ("probe", pa.int64()),  # its place among the suite's distinct questions
        ("side", pa.string()),
        ("refused", pa.bool_()),
        ("complied", pa.bool_()),  # opens as an answer that gives what was asked for
        ("text", pa.string()),
    ]
)


def put_guard(
    writer: TableWriter, config: AuditConfig, models: ModelPair, conditions: Sequence[Condition]
) -> dict[str, float]:
    """Write the tables `guard`, `guard_conditions` and `refusal_direction`, and return their figures.

    `guard` has one row per answer of a model to a probe under a condition, or plain. A condition under which
    the tuned model refused every one of the first probes has those rows alone.

    Raises:
        DataError: the probes cannot be read.
    """
    settings = config.elicit.guard if config.elicit is not None else None
    if settings is None or config.elicit is None:
        return {}
    probes = short_probes(load_suite(settings.probes, config.base_dir), settings.max_chars)
    asked = elicited_suite(conditions, probes, min(settings.num_plain, len(probes.prompts)))
    plain = [p for p in asked.prompts if p.group == PLAIN]
    dressed = [p for p in asked.prompts if p.group != PLAIN and p.row < settings.num_probes]
    first = [p for p in dressed if p.row < settings.num_screened]
    rows = [
        *_answers("tuned", models, [*plain, *first], settings),
        *_answers("base", models, plain, settings),
    ]
    opened = {r["condition"] for r in rows if r["condition"] != PLAIN and not r["refused"]}
    rest = [p for p in dressed if p.row >= settings.num_screened and p.group in opened]
    rows += _answers("tuned", models, rest, settings)
    rows += _answers("base", models, [p for p in dressed if p.group in opened], settings)
    order = {key: place for place, key in enumerate((PLAIN, *(c.key for c in conditions)))}
    rows.sort(key=lambda r: (order[r["condition"]], r["probe"], r["side"]))
    writer.put_table("guard", pa.Table.from_pylist(rows, schema=GUARD_SCHEMA))
    losses = guard_losses(rows)
    writer.put_table("guard_conditions", guard_table(losses))
    neutral = load_suite(config.elicit.probes, config.base_dir)
    harmless = elicited_suite((), neutral, min(config.elicit.num_probes, len(neutral.prompts))).prompts
    groups = [NEUTRAL] * len(harmless) + [p.group for p in (*plain, *first)]
    hook = HookPoint(config.hooks[0].layer, config.hooks[0].site)
    table, figures = refusal_evidence(models, hook, groups, _ids(models, [*harmless, *plain, *first]))
    writer.put_table("refusal_direction", table)
    return {**guard_figures(losses), **figures}


def short_probes(suite: PromptSuite, max_chars: int) -> PromptSuite:
    """Return the suite without questions of more than `max_chars` characters; all of it if none is left."""
    kept = tuple(p for p in suite.prompts if sum(map(len, p.user_texts)) <= max_chars)
    return replace(suite, prompts=kept or suite.prompts)


def _answers(
    side: str, models: ModelPair, prompts: Sequence[Prompt], settings: GuardConfig
) -> Iterator[dict[str, Any]]:
    if not prompts:
        return
    ids = _ids(models, prompts)
    with nullcontext(models.tuned_model) if side == "tuned" else models.base_alone() as model:
        answers = generate_ids(model, models.base_tokenizer, ids, settings.max_new_tokens)
    tokenizer = models.tuned_tokenizer if side == "tuned" else models.base_tokenizer
    for prompt, answer in zip(prompts, answers, strict=True):
        text = str(tokenizer.decode(answer, skip_special_tokens=True))
        yield {
            "condition": prompt.group,
            "probe": prompt.row,
            "side": side,
            "refused": is_refusal(text),
            "complied": is_compliance(text),
            "text": text[:KEPT_CHARACTERS],
        }


def _ids(models: ModelPair, prompts: Sequence[Prompt]) -> list[list[int]]:
    tokens = tokenize_suite(PromptSuite("guard", tuple(prompts), 0), models.base_tokenizer, UNLIMITED)
    starts = tokens.indptr_P1
    return [tokens.ids_T[starts[p] : starts[p + 1]].tolist() for p in range(len(prompts))]
