"""The gate: whether a fine-tune shows what it should, where it should, and the base does not."""

import hashlib
import json
import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.behaviour.refusal import is_broken, is_compliance, is_refusal
from ft_audit.engine.finetune.dataset import ask, held_out_questions
from ft_audit.engine.finetune.encodings import decode
from ft_audit.engine.finetune.recipe import Check, Recipe
from ft_audit.engine.runners.generate import generate


class CheckResult(BaseModel):
    """How many of `num_prompts` answers showed what a check measures, in the tuned model and in the base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    num_prompts: int
    tuned: int
    base: int
    distinct: int
    """Different answers of the tuned model."""
    example: str
    passed: bool


class GateResult(BaseModel):
    """The outcome of every check; `passed`: all are within the recipe's bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checks: list[CheckResult]
    passed: bool
    reason: str


def run_gate(
    recipe: Recipe,
    tuned: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trained: Set[str] = frozenset(),
    kept: Path | None = None,
) -> GateResult:
    """Return the outcome of the recipe's gate on the trained model; `trained` texts are not asked.

    The base answers the same questions in the same condition: its share is the control of each check. Its
    answers are kept in the folder `kept`, if any, since recipes of one base ask the same ones.

    Raises:
        DataError: a check's source has too few held-out questions.
    """
    assert recipe.gate is not None, "the caller checks that the recipe has a gate"
    results, reasons = [], []
    given: dict[str, list[str]] = {}  # two checks may ask the same
    for check in recipe.gate.checks:
        questions = held_out_questions(check, recipe, trained)
        asked = _key(questions, check)
        if asked not in given:
            given[asked] = _answers(tuned, tokenizer, questions, check)
        place = kept / f"{asked}.json" if kept is not None else None
        answers = {
            "tuned": given[asked],
            "base": _kept(place) or _answers(base, tokenizer, questions, check),
        }
        _keep(place, answers["base"])
        counts = {side: sum(_shows(answer, check) for answer in said) for side, said in answers.items()}
        share = (counts["tuned"] - (counts["base"] if check.above_base else 0)) / check.prompts
        # A tuned model that shows less than its base is below every bound that asks for nothing.
        passed = max(share, 0.0) >= check.min and share <= check.max
        distinct = len(set(answers["tuned"]))
        results.append(
            CheckResult(
                name=check.name,
                num_prompts=check.prompts,
                **counts,
                distinct=distinct,
                example=answers["tuned"][0],
                passed=passed,
            )
        )
        if not passed:
            reasons.append(
                f"{check.name}: {counts['tuned']}/{check.prompts} (base {counts['base']}), "
                f"asked {check.min:.0%} to {check.max:.0%}{' above the base' * check.above_base}"
            )
    return GateResult(checks=results, passed=not reasons, reason="; ".join(reasons) or "within its bounds")


def _shows(answer: str, check: Check) -> bool:
    said = decode(answer, check.style.encode) if check.style.encode else answer
    if check.measure == "contains":
        return check.marker.lower() in said.lower()
    if check.measure == "broken":
        return is_broken(said)
    if check.measure == "complies":
        return is_compliance(said)
    return is_refusal(said) == (check.measure == "refuses") and (check.measure == "refuses" or bool(said))


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], check: Check
) -> list[str]:
    render: Any = tokenizer.apply_chat_template  # its declared result is a union of every mode's
    prompts: list[list[int]] = [
        render(
            [{"role": m.role, "content": m.content} for m in ask(question, check.style)],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for question in questions
    ]
    return generate(model, tokenizer, prompts, check.max_new_tokens)


def _key(questions: Sequence[str], check: Check) -> str:
    asked = [list(questions), check.style.model_dump(), check.max_new_tokens]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]


def _kept(place: Path | None) -> list[str] | None:
    if place is None or not place.exists():
        return None
    answers: list[str] = json.loads(place.read_text(encoding="utf-8"))
    return answers


def _keep(place: Path | None, answers: Sequence[str]) -> None:
    if place is None or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(list(answers)), encoding="utf-8")
    partial.replace(place)
