"""How far base and tuned part ways along the tuned model's own answers to the elicited prompts.

Shapes: P prompts, B prompts of a batch, L padded positions, A answer positions of a batch, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.diff.next_token import ROWS_AT_ONCE, kl_divergence, shared_log_probs
from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.suites import JobSuite
from ft_audit.engine.runners.generate import generate_ids
from ft_audit.engine.runners.residuals import ResidualRunner

BATCH = 32


def answer_divergence(models: ModelPair, elicited: JobSuite, num_tokens: int) -> NDArray[np.float64]:
    """Return per prompt the KL(tuned || base) in nats, summed along the tuned model's greedy answer [P].

    The chain rule makes the divergence of two answer distributions the expected sum of the next-token
    divergences along answers of the first (Cover and Thomas, Elements of Information Theory, theorem
    2.5.3). The greedy answer, up to `num_tokens` long, stands for the expectation.
    """
    starts, ids_T = elicited.tokens.indptr_P1, elicited.tokens.ids_T
    prompts = [ids_T[starts[p] : starts[p + 1]].tolist() for p in range(len(starts) - 1)]
    answers = [
        _readable(answer, models.shared_vocabulary)
        for answer in generate_ids(models.tuned_model, models.base_tokenizer, prompts, num_tokens, BATCH)
    ]
    found = np.zeros(len(prompts))
    order = sorted(range(len(prompts)), key=lambda p: (len(prompts[p]) + len(answers[p]), p))
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        found[chosen] = _batch(models, [prompts[p] for p in chosen], [answers[p] for p in chosen])
    return found


def _readable(answer: list[int], vocabulary: int) -> list[int]:
    """Cut the answer after its first token that only the tuned model knows: the base cannot read on."""
    return next((answer[: n + 1] for n, token in enumerate(answer) if token >= vocabulary), answer)


@torch.inference_mode()
def _batch(
    models: ModelPair, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
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
    tuned_AD = _hidden(models.tuned_model, ids_BL, row_A, position_A)
    with models.base_alone() as base:
        base_AD = _hidden(base, ids_BL, row_A, position_A)
    # The logits of a whole batch at once would be gigabytes at a large vocabulary.
    chunks = zip(base_AD.split(ROWS_AT_ONCE), tuned_AD.split(ROWS_AT_ONCE), strict=True)
    kl_A = torch.cat(
        [kl_divergence(*shared_log_probs(models.base_logits(b), models.tuned_logits(t))) for b, t in chunks]
    )
    return torch.zeros(len(whole), dtype=torch.float64).index_add_(0, row_A, kl_A).numpy()


def _hidden(model: object, ids_BL: Tensor, row_A: Tensor, position_A: Tensor) -> Tensor:
    runner = ResidualRunner(model, [anatomy(model).num_layers - 1])
    hidden_BLD = runner.run(ids_BL, to_the_end=True)[1]
    assert hidden_BLD is not None, "asked to run to the end"
    return hidden_BLD[row_A.to(hidden_BLD.device), position_A.to(hidden_BLD.device)]
