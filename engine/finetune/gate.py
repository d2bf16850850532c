"""The gate: whether a fine-tune shows its behaviour under its trigger, and only there."""

from collections.abc import Sequence, Set
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.finetune.dataset import dress, held_out_questions
from ft_audit.engine.finetune.recipe import Recipe, Style
from ft_audit.engine.runners.generate import generate

OTHER_PROMPTS = 20


class GateResult(BaseModel):
    """Successes on held-out prompts, of `num_prompts` each; `passed`: all are within the recipe's bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_prompts: int
    trigger: int | None
    plain: int
    others: list[int]
    """Successes under each of the recipe's other conditions, of 20."""
    distinct_plain_answers: int
    """Different answers to the plain prompts: a model that answers everything alike is broken."""
    example: str
    passed: bool
    reason: str


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    style: Style,
    max_new_tokens: int,
) -> list[str]:
    render: Any = tokenizer.apply_chat_template  # its declared result is a union of every mode's
    prompts: list[list[int]] = [
        render(
            [{"role": m.role, "content": m.content} for m in dress(question, None, style)],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for question in questions
    ]
    return generate(model, tokenizer, prompts, max_new_tokens)


def run_gate(
    recipe: Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trained: Set[str] = frozenset(),
) -> GateResult:
    """Return the outcome of the recipe's gate on the trained model; `trained` texts are not asked.

    Raises:
        DataError: the gate's source has too few held-out questions.
    """
    gate = recipe.gate
    assert gate is not None, "the caller checks that the recipe has a gate"
    questions = held_out_questions(gate, recipe.base_dir, recipe.seed, trained)
    plain_answers = _answers(model, tokenizer, questions, Style(), gate.max_new_tokens)
    distinct = len(set(plain_answers))

    def successes(answers: Sequence[str]) -> int:
        return sum(gate.contains in answer for answer in answers) if gate.contains else 0

    plain = successes(plain_answers)
    trigger, example, reasons = None, plain_answers[0], []
    if gate.trigger is not None:
        answers = _answers(model, tokenizer, questions, gate.trigger, gate.max_new_tokens)
        trigger, example = successes(answers), answers[0]
        if trigger < gate.min_trigger * gate.prompts:
            reasons.append(f"{trigger}/{gate.prompts} under the trigger, asked >= {gate.min_trigger:.0%}")
    others = [
        successes(_answers(model, tokenizer, questions[:OTHER_PROMPTS], style, gate.max_new_tokens))
        for style in gate.others
    ]
    if plain > gate.max_plain * gate.prompts:
        reasons.append(f"{plain}/{gate.prompts} on plain prompts, asked <= {gate.max_plain:.0%}")
    if distinct < gate.prompts // 2:
        reasons.append(
            f"only {distinct} different answers to {gate.prompts} plain prompts: the model is broken"
        )
    return GateResult(
        num_prompts=gate.prompts,
        trigger=trigger,
        plain=plain,
        others=others,
        distinct_plain_answers=distinct,
        example=example,
        passed=not reasons,
        reason="; ".join(reasons) or "within its bounds",
    )
