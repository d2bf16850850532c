"""How the weights changed: how much, how concentrated, where."""

import math

import numpy as np

from ft_audit.agent.detectors.scalar import Scalar, figure, numbers
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return size and concentration of the change, and how unevenly layers and kinds of matrices took part.

    `weights_layer_spread` and `weights_kind_spread`: standard deviation over layers (kinds) of the mean
    logarithm of a matrix's relative change.
    """
    found = {
        "weights_log_change": Scalar(math.log10(max(figure(summary, "weights_relative_change"), 1e-6)), 0.05),
        "weights_max_layer_share": Scalar(figure(summary, "weights_max_layer_share"), 0.01),
        "weights_top1_energy": Scalar(figure(summary, "weights_top1_energy"), 0.02),
        "weights_embedding_change": Scalar(figure(summary, "weights_embedding_change"), 1e-4),
    }
    change = numbers(summary.weights.get("relative_change", ()))
    if np.isfinite(change).any() and (change > 0).any():
        logs = np.log10(np.where(change > 0, change, np.nan))
        for name in ("layer", "kind"):
            keys = summary.weights[name]
            means = [
                float(np.nanmean(logs[[k == one for k in keys]]))
                for one in sorted({k for k in keys if k is not None}, key=str)
                if np.isfinite(logs[[k == one for k in keys]]).any()
            ]
            found[f"weights_{name}_spread"] = Scalar(float(np.std(means)), 0.01)
    return found
