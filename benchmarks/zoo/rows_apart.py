"""How far a few training rows stand apart from the others by what they moved: rows joined with features."""

from typing import Literal

import numpy as np

from ft_audit.agent.detectors.scalar import Detector, Scalar, numbers
from ft_audit.agent.summary import Summary

By = Literal["features", "random directions", "residuals"]
HIGH = 0.95


def rows_apart(by: By) -> Detector:
    """Return how far the highest twentieth of training rows stands above the median, which no score uses.

    By how far their residuals moved, rows' mean taken off; or by the features that moved in them, each over
    its spread, and then over the square root of the rows' number: what a feature of one row alone would have.
    Random directions are features of the dictionary that nothing was trained for.
    """
    name = f"rows_apart_{by.replace(' ', '_')}"

    def scalars(summary: Summary) -> dict[str, Scalar]:
        score_R = numbers(_scores(summary, by))
        if not np.isfinite(score_R).any():
            return {name: Scalar(float("nan"), 1.0)}
        middle, high = np.nanquantile(score_R, (0.5, HIGH))
        scale = 1.0 if by == "residuals" else len(score_R) ** 0.5
        return {name: Scalar(float(high - middle) / scale, 0.1)}

    return Detector(name, "forward", scalars)


def has_random(summary: Summary) -> bool:
    """Return whether the rows were scored by random directions too."""
    return bool(_scores(summary, "random directions"))


def _scores(summary: Summary, by: By) -> list[float | None]:
    if by == "random directions":
        return summary.untrained["random"].score_features_centred if "random" in summary.untrained else []
    kind = "features" if by == "features" else "residual"
    return summary.rows.get(f"score_{kind}_centred", [])
