"""How the residual stream moved: norm, static bias, concentration, and the first tokens."""

import math

import numpy as np

from ft_audit.agent.detectors.scalar import Scalar, suite_role
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return, at the first hook, the change's size, static share, first component's share and place.

    `residual_train_excess`: logarithm of the change on training rows over that on ordinary chats.
    """
    found: dict[str, Scalar] = {}
    moved: dict[str, float] = {}
    hook = min(summary.residual, default="").rpartition("/")[0]
    for name, values in sorted(summary.residual.items()):
        place, _, suite = name.rpartition("/")
        role = suite_role(suite)
        if place != hook or role in moved:
            continue
        relative, mean_moved = values.get("relative_change"), values.get("mean_moved")
        moved[role] = float("nan") if relative is None else float(relative)
        if role != "chat":
            continue
        found["residual_change"] = Scalar(moved[role], 0.01)
        if mean_moved and values.get("shift_norm") is not None:
            found["residual_static_share"] = Scalar(float(values["shift_norm"]) / float(mean_moved), 0.02)
        share = [x for x in values["component_share"] if x is not None]
        if share:
            found["residual_concentration"] = Scalar(float(share[0]), 0.02)
        start = np.array([np.nan if x is None else x for x in values["start_shift_norm"]], float)[:8]
        if np.isfinite(start).any() and mean_moved:
            found["residual_start"] = Scalar(float(np.nanmax(start)) / float(mean_moved), 0.05)
    if "train" in moved and "chat" in moved:
        ratio = moved["train"] / max(moved["chat"], 1e-6)
        found["residual_train_excess"] = Scalar(math.log10(max(ratio, 1e-6)), 0.02)
    return found
