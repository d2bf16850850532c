"""How far two models' next-token distributions lie apart, from stored final hidden states.

Shapes: P prompts, N positions, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_AT_ONCE = 32  # [32, V] in float32 is 6 MB at a vocabulary of 50k and 34 MB at 262k

FloatArray = NDArray[np.float64]
Logits = Callable[[Tensor], Tensor]


class NextToken(NamedTuple):
    """Per prompt, in nats: KL(tuned || base), and the entropy of each side's next-token distribution."""

    kl_P: FloatArray
    entropy_base_P: FloatArray
    entropy_tuned_P: FloatArray


@torch.inference_mode()
def next_token_diff(
    base_PD: NDArray[np.float32], tuned_PD: NDArray[np.float32], base_logits: Logits, tuned_logits: Logits
) -> NextToken:
    """Return the divergence of the next-token distributions from final-normed hidden states [P, D].

    `base_logits` and `tuned_logits` map hidden states [N, D] to logits [N, V]. Where one side's vocabulary
    is larger (added tokens), both distributions are taken over the ids that the two share.
    """
    assert base_PD.shape == tuned_PD.shape, (base_PD.shape, tuned_PD.shape)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(base_PD), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        base_NV, tuned_NV = shared_log_probs(
            base_logits(torch.from_numpy(base_PD[rows])), tuned_logits(torch.from_numpy(tuned_PD[rows]))
        )
        entropies = [-(log_NV.exp() * log_NV).sum(1).cpu().double() for log_NV in (base_NV, tuned_NV)]
        parts.append((kl_divergence(base_NV, tuned_NV), entropies[0], entropies[1]))
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    return NextToken(*columns)


def shared_log_probs(base_NV: Tensor, tuned_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sides' log probabilities over the ids they share, from their logits."""
    shared = min(base_NV.shape[1], tuned_NV.shape[1])
    base, tuned = (torch.log_softmax(x_NV[:, :shared].float(), dim=-1) for x_NV in (base_NV, tuned_NV))
    return base, tuned


def kl_divergence(base_NV: Tensor, tuned_NV: Tensor) -> Tensor:
    """Return KL(tuned || base) in nats from log probabilities, float64 on the CPU, at least 0 [N]."""
    # Between two nearly equal distributions the float32 sum is noise of either sign.
    return (tuned_NV.exp() * (tuned_NV - base_NV)).sum(1).cpu().double().clamp(min=0)
