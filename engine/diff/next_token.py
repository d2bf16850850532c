"""How far two models' next-token distributions lie apart, from stored final hidden states and their heads.

Shapes: P prompts, D width, V vocabulary.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROWS_AT_ONCE = 64  # [64, V] in float32 is 13 MB at a vocabulary of 50k and 67 MB at 262k

FloatArray = NDArray[np.float64]


class NextToken(NamedTuple):
    """Per prompt, in nats: KL(tuned || base), and the entropy of each side's next-token distribution."""

    kl_P: FloatArray
    entropy_base_P: FloatArray
    entropy_tuned_P: FloatArray


@torch.inference_mode()
def _log_probs(hidden_PD: NDArray[np.float32], head: nn.Module) -> Tensor:
    weight = next(head.parameters())
    return torch.log_softmax(
        head(torch.from_numpy(hidden_PD).to(weight.device, weight.dtype)).float(), dim=-1
    )


def next_token_diff(
    base_PD: NDArray[np.float32], tuned_PD: NDArray[np.float32], base_head: nn.Module, tuned_head: nn.Module
) -> NextToken:
    """Return the divergence of the next-token distributions from final-normed hidden states [P, D]."""
    assert base_PD.shape == tuned_PD.shape, (base_PD.shape, tuned_PD.shape)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(base_PD), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        base_PV, tuned_PV = _log_probs(base_PD[rows], base_head), _log_probs(tuned_PD[rows], tuned_head)
        p_tuned_PV, p_base_PV = tuned_PV.exp(), base_PV.exp()
        parts.append(
            (
                (p_tuned_PV * (tuned_PV - base_PV)).sum(1),
                -(p_base_PV * base_PV).sum(1),
                -(p_tuned_PV * tuned_PV).sum(1),
            )
        )
    columns = [torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True)]
    return NextToken(*columns)
