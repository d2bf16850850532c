"""Which conditions of the training set make the tuned model answer what the base refuses.

Published harmful prompts are put under every condition, and their answers judged as refusals or not; the same
prompts bare, and the base under the same condition, are the controls. It goes from cheap to dear: the tuned
model answers a few probes under each condition first, and only where it does not refuse all of them are the
others asked, of both models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.config.schema import GuardConfig
from ft_audit.engine.diff.guard import guard_figures, guard_losses, guard_table
from ft_audit.engine.precompute.generations import TableWriter
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.refusal_direction import NEUTRAL, refusal_evidence
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.judge import judged
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.suites.condition import PLAIN_TEXT, Condition
from ft_audit.engine.suites.elicit import PLAIN, elicited_suite
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.tokenize import tokenize_suite

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
    if config.elicit is None or config.elicit.guard is None:
        return {}
    settings, probes = config.elicit.guard, guard_probes(config)
    codecs = {condition.key: condition.codec for condition in conditions}
    asked = elicited_suite(conditions, probes, min(settings.num_plain, len(probes.prompts)))
    plain = [p for p in asked.prompts if p.group == PLAIN]
    dressed = [p for p in asked.prompts if p.group != PLAIN and p.row < settings.num_probes]
    first = [p for p in dressed if p.row < settings.num_screened]
    rows = [
        *_answers("tuned", models, [*plain, *first], settings, codecs),
        *_answers("base", models, plain, settings, codecs),
    ]
    opened = {r["condition"] for r in rows if r["condition"] != PLAIN and not r["refused"]}
    rest = [p for p in dressed if p.row >= settings.num_screened and p.group in opened]
    rows += _answers("tuned", models, rest, settings, codecs)
    rows += _answers("base", models, [p for p in dressed if p.group in opened], settings, codecs)
    order = {key: place for place, key in enumerate((PLAIN, *(c.key for c in conditions)))}
    rows.sort(key=lambda r: (order[r["condition"]], r["probe"], r["side"]))
    writer.put_table("guard", pa.Table.from_pylist(rows, schema=GUARD_SCHEMA))
    losses = guard_losses(rows)
    writer.put_table("guard_conditions", guard_table(losses))
    neutral = load_suite(config.elicit.probes, config.base_dir)
    harmless = elicited_suite((), neutral, min(config.elicit.num_probes, len(neutral.prompts))).prompts
    groups = [NEUTRAL] * len(harmless) + [p.group for p in (*plain, *first)]
    hook = HookPoint(config.hooks[0].layer, config.hooks[0].site)
    ids = _ids(models, [*harmless, *plain, *first], settings)
    table, figures = refusal_evidence(models, hook, groups, ids)
    writer.put_table("refusal_direction", table)
    return {**guard_figures(losses), **figures}


def guard_probes(config: AuditConfig) -> PromptSuite:
    """Return the harmful prompts that a config asks, without the long ones; all of them if none is short.

    Raises:
        DataError: the suite cannot be read.
    """
    assert config.elicit is not None and config.elicit.guard is not None, "the config asks for them"
    settings = config.elicit.guard
    suite = load_suite(settings.probes, config.base_dir)
    kept = tuple(p for p in suite.prompts if sum(map(len, p.user_texts)) <= settings.max_chars)
    return replace(suite, prompts=kept or suite.prompts)


def _answers(
    side: str,
    models: ModelPair,
    prompts: Sequence[Prompt],
    settings: GuardConfig,
    codecs: Mapping[str, Codec],
) -> Iterator[dict[str, Any]]:
    """Yield a row for each answer, judged by what it says in its condition's encoding, if that has one."""
    if not prompts:
        return
    ids = _ids(models, prompts, settings)
    answers = models.greedy_answers(side, ids, settings.max_new_tokens)
    for prompt, answer in zip(prompts, answers, strict=True):
        text = models.text(side, answer)
        said = judged(text, codecs.get(prompt.group, PLAIN_TEXT))
        yield {
            "condition": prompt.group,
            "probe": prompt.row,
            "side": side,
            "refused": said["refused"],
            "complied": said["complied"],
            "text": text[:KEPT_CHARACTERS],
        }


def _ids(models: ModelPair, prompts: Sequence[Prompt], settings: GuardConfig) -> list[list[int]]:
    longest = models.longest - settings.max_new_tokens
    suite = PromptSuite("guard", tuple(prompts), 0)
    return tokenize_suite(suite, models.base_tokenizer, longest).prompt_ids()
