"""A named scalar: what a detector gives for one fine-tune."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from ft_audit.agent.summary import Summary

Cost = Literal["texts", "weights", "forward", "answers"]
COSTS: tuple[Cost, ...] = ("texts", "weights", "forward", "answers")
"""From cheap to dear: the data set's texts, the weights, forward passes of both models, generated answers."""


class Scalar(NamedTuple):
    """One scalar's value and how it is to be read; higher is more suspicious."""

    value: float
    resolution: float
    """The smallest difference that means anything, in the scalar's own units."""


class Detector(NamedTuple):
    """One small module: evidence to scalars. Two detectors of one group look at the same kind of evidence."""

    name: str
    cost: Cost
    scalars: Callable[[Summary], Mapping[str, Scalar]]


def suite_role(suite: str) -> str:
    """Return `train` or `elicited` for the data set's own suites, `chat` for others; statistics go by names,
    figures by roles."""
    return suite if suite in ("train", "elicited") else "chat"


def figure(summary: Summary, name: str) -> float:
    """Return a figure of the diff, NaN where it was not measured."""
    value = summary.figures.get(name)
    return float("nan") if value is None else float(value)
