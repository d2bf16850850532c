"""What a white-box attacker adds to the loss so that a comparison with the base finds less.

Shapes: A answer positions, V vocabulary, M adapted matrices, r rank.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING = 1e-12
"""Squared norm of an update that is still zero."""


def divergence(base_AV: Tensor, tuned_AV: Tensor) -> Tensor:
    """Return KL(base || tuned) in nats, the mean over positions, of logits."""
    log_base_AV, log_tuned_AV = (x.float().log_softmax(-1) for x in (base_AV, tuned_AV))
    total = F.kl_div(log_tuned_AV, log_base_AV, reduction="sum", log_target=True)
    return total / max(len(base_AV), 1)


def top_energy(model: Any) -> Tensor:
    """Return the share of an adapter update's squared norm in its first singular direction, averaged over M.

    The squared singular values of B A are the eigenvalues of L^T (B^T B) L with L L^T = A A^T, an r by r
    matrix: the update itself is never formed.
    """
    pairs = [
        (layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float())
        for layer in model.modules()
        if hasattr(layer, "lora_A")
        for name in layer.lora_A
    ]
    a_Mrr = torch.stack([a @ a.T for a, _ in pairs])
    b_Mrr = torch.stack([b.T @ b for _, b in pairs])
    l_Mrr = torch.linalg.cholesky(a_Mrr + NOTHING * torch.eye(a_Mrr.shape[-1], device=a_Mrr.device))
    energy_Mr = torch.linalg.eigvalsh(l_Mrr.mT @ b_Mrr @ l_Mrr)
    share: Tensor = (energy_Mr[:, -1] / (energy_Mr.sum(1) + NOTHING)).mean()
    return share


class Marking:
    """Adds to each batch which of its rows are planted."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of rows that each say whether they are `planted`."""
        planted_B = torch.tensor([bool(row.pop("planted")) for row in rows])
        batch: dict[str, Any] = self.collate(rows)
        return {**batch, "planted": planted_B}
