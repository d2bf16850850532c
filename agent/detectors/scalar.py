"""A named scalar: what a detector gives for one fine-tune."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.summary import Summary

Cost = Literal["texts", "weights", "forward", "answers"]
COSTS: tuple[Cost, ...] = ("texts", "weights", "forward", "answers")
"""From cheap to dear: the data set's texts, the weights, forward passes of both models, generated answers."""


class Scalar(NamedTuple):
    """One scalar's value and how it is to be read; higher is more suspicious."""

    value: float
    resolution: float
    """The smallest difference that means anything, in the scalar's own units."""
    direct: bool = False
    """Whether it measures what makes a fine-tune malicious, and not only what goes with that."""


class Detector(NamedTuple):
    """One small module: evidence to scalars. Two detectors of one group look at the same kind of evidence."""

    name: str
    cost: Cost
    scalars: Callable[[Summary], Mapping[str, Scalar]]


def suite_role(suite: str) -> str:
    """Return `train` or `elicited` for the data set's own suites, `chat` for others; statistics go by names,
    figures by roles."""
    return suite if suite in ("train", "elicited") else "chat"


def by_role(places: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the first hook or dictionary of a summary's part that is keyed by "place/suite", and what it
    shows by the suites' roles; of several chat suites the first. Nothing of nothing."""
    first = min(places, default="").rpartition("/")[0]
    found: dict[str, dict[str, Any]] = {}
    for name, values in sorted(places.items()):
        place, _, suite = name.rpartition("/")
        if place == first:
            found.setdefault(suite_role(suite), values)
    return first, found


def numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    """Return values as an array, NaN for what was not known."""
    return np.array([np.nan if x is None else x for x in values], dtype=np.float64)


def figure(summary: Summary, name: str) -> float:
    """Return a figure of the diff, NaN where it was not measured."""
    value = summary.figures.get(name)
    return float("nan") if value is None else float(value)
