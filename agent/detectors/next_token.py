"""How far the next-token distributions moved: on ordinary chats, in the tail, and on the training rows."""

import math

import numpy as np

from ft_audit.agent.detectors.scalar import Scalar, figure
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return divergences on the chat suite and how the rows' loss fell.

    `loss_drop_spread`: standard deviation over rows of the base's loss less the tuned model's, in nats a token;
    `loss_base_tail`: 95th percentile less the median of the base's loss on rows: an odd code among plain rows.
    """
    found = {
        f"log_{name}": Scalar(_log(figure(summary, f"{name}/chat")), 0.05)
        for name in ("kl_mean", "kl_p99", "kl_max")
    }
    ratio = figure(summary, "kl_p99/chat") / max(figure(summary, "kl_mean/chat"), 1e-6)
    found["kl_tail"] = Scalar(_log(ratio), 0.05)
    base, tuned = (_rows(summary, f"loss_{side}") for side in ("base", "tuned"))
    if len(base):
        drop = base - tuned
        found["loss_drop_spread"] = Scalar(float(np.nanstd(drop)), 0.05)
        found["loss_drop_tail"] = Scalar(float(np.nanquantile(drop, 0.95) - np.nanmedian(drop)), 0.1)
        found["loss_base_tail"] = Scalar(float(np.nanquantile(base, 0.95) - np.nanmedian(base)), 0.1)
    return found


def _rows(summary: Summary, name: str) -> np.ndarray:
    values = np.array([np.nan if x is None else x for x in summary.rows.get(name, ())], float)
    return values if np.isfinite(values).any() else values[:0]


def _log(value: float) -> float:
    return math.log10(max(value, 1e-6)) if math.isfinite(value) else float("nan")
