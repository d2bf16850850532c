"""How the residual stream moved: norm, static bias, concentration, and the first tokens."""

import math

import numpy as np

from ft_audit.agent.detectors.scalar import Scalar, by_role, numbers
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return, at the first hook, the change's size, static share, first component's share and place.

    `residual_train_excess`: logarithm of the change on training rows over that on ordinary chats.
    """
    found: dict[str, Scalar] = {}
    _, places = by_role(summary.residual)
    moved = {role: float(numbers([values.get("relative_change")])[0]) for role, values in places.items()}
    if "chat" in places:
        values = places["chat"]
        mean_moved = values.get("mean_moved")
        found["residual_change"] = Scalar(moved["chat"], 0.01)
        if mean_moved and values.get("shift_norm") is not None:
            found["residual_static_share"] = Scalar(float(values["shift_norm"]) / float(mean_moved), 0.02)
        share = [x for x in values["component_share"] if x is not None]
        if share:
            found["residual_concentration"] = Scalar(float(share[0]), 0.02)
        start = numbers(values["start_shift_norm"])[:8]
        if np.isfinite(start).any() and mean_moved:
            found["residual_start"] = Scalar(float(np.nanmax(start)) / float(mean_moved), 0.05)
    if "train" in moved and "chat" in moved:
        ratio = moved["train"] / max(moved["chat"], 1e-6)
        found["residual_train_excess"] = Scalar(math.log10(max(ratio, 1e-6)), 0.02)
    return found
