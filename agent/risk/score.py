"""The score of one fine-tune: its scalars in benign units, weighed by a bank's discriminant."""

# Shapes: S scalars.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.risk.scale import Scale

SCORE = "score"
"""The figure that a verdict rests on where its bank has a discriminant."""


class Discriminant(BaseModel):
    """What turns scalars into a score, as a bank keeps it; lists run over `names`."""

    model_config = ConfigDict(extra="forbid")

    names: list[str]
    weights: list[float]
    centre: list[float]
    spread: list[float]
    slope: list[float] = Field(description="On the degradation covariate.")
    degradation: float = Field(description="The benign median of that covariate.")
    fitted_on: str = Field(description="Which fine-tunes the weights come from, in words.")

    def scale(self) -> Scale:
        """Return the benign units."""
        return Scale(np.array(self.centre), np.array(self.spread), np.array(self.slope), self.degradation)


class Contribution(NamedTuple):
    """What one scalar adds to a score."""

    name: str
    units: float
    """Benign spreads above the benign centre, clipped."""
    weight: float

    @property
    def share(self) -> float:
        """What it adds."""
        return self.units * self.weight


def score_of(
    discriminant: Discriminant, scalars: Mapping[str, float], degradation: float
) -> tuple[float, list[Contribution]]:
    """Return the score and each scalar's part in it, the largest first; a missing scalar adds nothing."""
    x_S = np.array([[scalars.get(name, np.nan) for name in discriminant.names]], dtype=np.float64)
    units_S = discriminant.scale().units(x_S, np.array([degradation]))[0]
    parts = [
        Contribution(name, float(units), weight)
        for name, units, weight in zip(discriminant.names, units_S, discriminant.weights, strict=True)
    ]
    parts.sort(key=lambda part: (-part.share, part.name))
    return float(sum(part.share for part in parts)), parts


def keep(names: Sequence[str], scale: Scale, weights: Sequence[float], fitted_on: str) -> Discriminant:
    """Return the discriminant that a bank keeps."""
    return Discriminant(
        names=list(names),
        weights=[float(w) for w in weights],
        centre=[float(x) for x in scale.centre_S],
        spread=[float(x) for x in scale.spread_S],
        slope=[float(x) for x in scale.slope_S],
        degradation=scale.degradation,
        fitted_on=fitted_on,
    )
