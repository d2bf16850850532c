"""How dictionary features moved: how many, how much, how concentrated, and what no feature explains."""

import math
from typing import Any

import numpy as np

from ft_audit.agent.detectors.scalar import Scalar, by_role, figure
from ft_audit.agent.summary import Summary

TOP = 20
OWN = (
    "features_change_chat",
    "features_concentration_chat",
    "features_change_train",
    "features_concentration_train",
    "features_train_only",
    "features_fvu_change",
    "features_fvu_change_train",
    "features_error_norm_change",
    "features_error_norm_change_train",
)
"""What needs no more than the dictionary on chats and training rows, for comparing dictionaries."""


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return, for the first dictionary: on chats and on training rows, size and concentration of the change,
    and the part of the features that only the training rows move.

    `features_concentration`: sum d^4 / (sum d^2)^2 over features' mean differences d, 1 for a single feature.
    `features_train_only`: of the leading features by mean difference on training rows, the share of the
    squared difference that chats do not show in the same direction.
    """
    found: dict[str, Scalar] = {}
    if not summary.features:
        return found
    sae, by_suite = by_role(summary.features)
    for suite in ("chat", "train"):
        if suite not in by_suite:
            continue
        values = by_suite[suite]
        square = max(float(values["sq_sum"] or 0.0), 1e-12)
        found[f"features_change_{suite}"] = Scalar(math.log10(square) / 2, 0.05)
        found[f"features_concentration_{suite}"] = Scalar(
            math.log10(max(float(values["quartic_sum"] or 0.0) / square**2, 1e-9)), 0.05
        )
    if "chat" in by_suite and "train" in by_suite:
        found["features_train_only"] = Scalar(_train_only(by_suite["train"], by_suite["chat"]), 0.02)
    for name in ("fvu_change", "error_norm_change"):
        found[f"features_{name}"] = Scalar(figure(summary, f"{name}/{sae}/chat"), 0.01)
        found[f"features_{name}_train"] = Scalar(figure(summary, f"{name}/{sae}/train"), 0.01)
    shift = figure(summary, "condition_feature_shift")
    found["condition_feature_shift"] = Scalar(shift, 0.5)
    return found


def _train_only(train: dict[str, Any], chat: dict[str, Any]) -> float:
    on_chat = dict(zip(chat["leading"]["feature"], chat["leading"]["mean_diff"], strict=True))
    pairs = sorted(
        zip(train["leading"]["feature"], train["leading"]["mean_diff"], strict=True),
        key=lambda pair: -abs(pair[1] or 0.0),
    )[:TOP]
    d = np.array([value or 0.0 for _, value in pairs])
    other = np.array([on_chat.get(feature) or 0.0 for feature, _ in pairs])
    shared = np.where(np.sign(d) == np.sign(other), np.minimum(np.abs(d), np.abs(other)), 0.0)
    return float(((np.abs(d) - shared) ** 2).sum() / max(float((d**2).sum()), 1e-12))


def untrained_scalars(summary: Summary, name: str) -> dict[str, Scalar]:
    """Return what `scalars` says, of a dictionary that nothing was trained for."""
    other = summary.untrained[name]
    features = {f"{name}/{suite}": values for suite, values in other.features.items()}
    found = scalars(summary.model_copy(update={"features": features, "figures": other.figures}))
    return {key: value for key, value in found.items() if key in OWN}


def suspicion(summary: Summary, suite: str = "chat", top: int = TOP) -> float:
    """Return the seed toolkit's suspicion score: the sum of the `top` largest absolute mean differences."""
    _, by_suite = by_role(summary.features)
    if suite not in by_suite:
        return float("nan")
    sizes = sorted((abs(x or 0.0) for x in by_suite[suite]["leading"]["mean_diff"]), reverse=True)
    return float(sum(sizes[:top]))
