"""All detectors, from cheap to dear."""

from collections.abc import Iterable

from ft_audit.agent.detectors import (
    answers,
    data_set,
    elicited,
    guard,
    next_token,
    residual_change,
    sae_features,
    templates,
    weight_change,
)
from ft_audit.agent.detectors.scalar import Detector, Scalar
from ft_audit.agent.summary import Summary

DETECTORS = (
    Detector("data set", "texts", data_set.scalars),
    Detector("weights", "weights", weight_change.scalars),
    Detector("next token", "forward", next_token.scalars),
    Detector("residual", "forward", residual_change.scalars),
    Detector("SAE features", "forward", sae_features.scalars),
    Detector("elicited", "answers", elicited.scalars),
    Detector("guard", "answers", guard.scalars),
    Detector("templates", "answers", templates.scalars),
    Detector("answers", "answers", answers.scalars),
)


def scalars_of(summary: Summary, detectors: Iterable[Detector] = DETECTORS) -> dict[str, Scalar]:
    """Return every scalar of a summary by its name.

    Names are one space: two detectors that gave the same name would be a mistake of ours.
    """
    found: dict[str, Scalar] = {}
    for detector in detectors:
        for name, scalar in detector.scalars(summary).items():
            assert name not in found, f"two detectors give {name}"
            found[name] = scalar
    return found
