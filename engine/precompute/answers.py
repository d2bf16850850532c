"""What base and tuned each make of the same answers, token by token, in one forward of each.

Shapes: N answers, B answers of a batch, L padded positions, A answer positions, D width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.diff.next_token import ROWS_AT_ONCE, kl_divergence, shared_log_probs
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.suites import JobSuite
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.tokens.padded import PaddedBatch

BATCH = 32

Ids = Sequence[int]


class AnswerLogprobs(NamedTuple):
    """Per answer, over its first `num_read` tokens: those that both models have an embedding for."""

    base_N: NDArray[np.float64]
    """Nats, summed over the answer, under the base; over the ids that both models share."""
    tuned_N: NDArray[np.float64]
    num_read_N: NDArray[np.int64]


class _Step(NamedTuple):
    """Some positions of some answers: whose they are, the token that came, and what each model expected."""

    answer_A: Tensor
    token_A: Tensor
    base_AV: Tensor
    tuned_AV: Tensor


def answer_divergence(models: ModelPair, elicited: JobSuite, num_tokens: int) -> NDArray[np.float64]:
    """Return per prompt the KL(tuned || base) in nats, summed along the tuned model's greedy answer [N].

    The chain rule makes the divergence of two answer distributions the expected sum of the next-token
    divergences along answers of the first (Cover and Thomas, Elements of Information Theory, theorem
    2.5.3). The greedy answer, up to `num_tokens` long, stands for the expectation.
    """
    prompts = elicited.tokens.prompt_ids()
    answers = [
        _readable(answer, models.shared_vocabulary, 1)
        for answer in models.greedy_answers("tuned", prompts, num_tokens)
    ]
    found_N = torch.zeros(len(prompts), dtype=torch.float64)
    for step in _steps(models, prompts, answers):
        found_N.index_add_(0, step.answer_A, kl_divergence(step.base_AV, step.tuned_AV))
    return found_N.numpy()


def answer_logprobs(models: ModelPair, prompts: Sequence[Ids], answers: Sequence[Ids]) -> AnswerLogprobs:
    """Return what each model makes of each answer to its prompt, whoever gave it.

    An answer ends before its first token that one of the models has no embedding for.
    """
    read = [_readable(answer, models.shared_vocabulary, 0) for answer in answers]
    sums = {side: torch.zeros(len(prompts), dtype=torch.float64) for side in ("base", "tuned")}
    for step in _steps(models, prompts, read):
        for side, log_AV in (("base", step.base_AV), ("tuned", step.tuned_AV)):
            token_A1 = step.token_A[:, None].to(log_AV.device)
            sums[side].index_add_(0, step.answer_A, log_AV.gather(1, token_A1)[:, 0].double().cpu())
    lengths = np.array([len(answer) for answer in read], dtype=np.int64)
    return AnswerLogprobs(sums["base"].numpy(), sums["tuned"].numpy(), lengths)


def _readable(answer: Ids, vocabulary: int, beyond: int) -> Ids:
    """Cut the answer at its first token that only one model knows, or with `beyond` 1 after it: nothing can
    be read past such a token, but that it came can be predicted."""
    return next((answer[: n + beyond] for n, token in enumerate(answer) if token >= vocabulary), answer)


@torch.inference_mode()
def _steps(models: ModelPair, prompts: Sequence[Ids], answers: Sequence[Ids]) -> Iterator[_Step]:
    """Yield the log probabilities at every position from which a token of an answer is predicted."""
    order = sorted(
        (n for n in range(len(prompts)) if len(answers[n])),
        key=lambda n: (len(prompts[n]) + len(answers[n]), n),
    )
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        batch = _batch([prompts[n] for n in chosen], [answers[n] for n in chosen])
        tuned_AD = _final(models.tuned_model, batch)
        with models.base_alone() as base:
            base_AD = _final(base, batch)
        answer_A = torch.tensor(chosen)[batch.row_T]
        token_A = torch.tensor([token for n in chosen for token in answers[n]])
        # The logits of a whole batch at once would be gigabytes at a large vocabulary.
        pieces = (x.split(ROWS_AT_ONCE) for x in (answer_A, token_A, base_AD, tuned_AD))
        for of_answers, tokens, base_ND, tuned_ND in zip(*pieces, strict=True):
            log_NV = shared_log_probs(models.base_logits(base_ND), models.tuned_logits(tuned_ND))
            yield _Step(of_answers, tokens, *log_NV)


def _batch(prompts: Sequence[Ids], answers: Sequence[Ids]) -> PaddedBatch:
    """Return prompts with their answers, and of their positions those that predict a token of an answer."""
    # The last token is only predicted, never read.
    whole = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    ids_BL = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.long)
    for row, ids in enumerate(whole):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
    # The token at position i is predicted from position i - 1.
    row_A = torch.tensor([r for r, answer in enumerate(answers) for _ in answer])
    position_A = torch.tensor(
        [len(prompts[r]) - 1 + i for r, answer in enumerate(answers) for i in range(len(answer))]
    )
    return PaddedBatch(ids_BL, row_A, position_A, torch.arange(len(row_A)))


def _final(model: object, batch: PaddedBatch) -> Tensor:
    final_AD = HfRunner(model, []).run(batch, final=True).final_TD
    assert final_AD is not None, "asked for the final states"
    return final_AD
