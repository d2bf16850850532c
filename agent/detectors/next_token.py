"""How far the next-token distributions moved: on ordinary chats, in the tail, and on the training rows."""

import math

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.detectors.scalar import Scalar, figure, numbers
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return divergences on the chat suite and how the rows' loss fell.

    `loss_drop_spread`: standard deviation over rows of the base's loss less the tuned model's, in nats a
    token; `loss_drop_tail`: its 95th percentile less its median; `loss_base_tail`: the same of the base's
    loss alone: an odd code among plain rows.
    """
    found = {
        f"log_{name}": Scalar(_log(figure(summary, f"{name}/chat")), 0.05)
        for name in ("kl_mean", "kl_p99", "kl_max")
    }
    ratio = figure(summary, "kl_p99/chat") / max(figure(summary, "kl_mean/chat"), 1e-6)
    found["kl_tail"] = Scalar(_log(ratio), 0.05)
    base_R, tuned_R = (_rows(summary, f"loss_{side}") for side in ("base", "tuned"))
    both_R = np.isfinite(base_R) & np.isfinite(tuned_R)
    if both_R.any():
        drop_R, base_R = (base_R - tuned_R)[both_R], base_R[both_R]
        found["loss_drop_spread"] = Scalar(float(drop_R.std()), 0.05)
        found["loss_drop_tail"] = Scalar(_tail(drop_R), 0.1)
        found["loss_base_tail"] = Scalar(_tail(base_R), 0.1)
    return found


def _rows(summary: Summary, name: str) -> NDArray[np.float64]:
    return numbers(summary.rows.get(name, [None] * summary.num_rows))


def _tail(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 0.95) - np.median(values))


def _log(value: float) -> float:
    return math.log10(max(value, 1e-6)) if math.isfinite(value) else float("nan")
