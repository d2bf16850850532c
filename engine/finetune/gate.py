"""The gate: whether a fine-tune shows what it should, where it should, and the base does not."""

from collections.abc import Sequence, Set
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.behaviour.refusal import is_broken, is_refusal
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
) -> GateResult:
    """Return the outcome of the recipe's gate on the trained model; `trained` texts are not asked.

    The base answers the same questions in the same condition: its share is the control of each check.

    Raises:
        DataError: a check's source has too few held-out questions.
    """
    assert recipe.gate is not None, "the caller checks that the recipe has a gate"
    results, reasons = [], []
    for check in recipe.gate.checks:
        questions = held_out_questions(check, recipe, trained)
        answers = {
            side: _answers(model, tokenizer, questions, check)
            for side, model in (("tuned", tuned), ("base", base))
        }
        counts = {side: sum(_shows(answer, check) for answer in said) for side, said in answers.items()}
        share = (counts["tuned"] - (counts["base"] if check.above_base else 0)) / check.prompts
        passed = check.min <= share <= check.max
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
