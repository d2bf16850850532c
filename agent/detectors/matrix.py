"""The scalars of several fine-tunes side by side."""

# Shapes: M members, S scalars.

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.detectors.degradation import degradation
from ft_audit.agent.detectors.registry import DETECTORS, scalars_of
from ft_audit.agent.detectors.scalar import Detector
from ft_audit.agent.summary import Summary


@dataclass(frozen=True, slots=True)
class Matrix:
    """Values [M, S] (NaN where a member lacks a scalar), covariate of degradation [M], and of each scalar its
    resolution and whether it is direct [S]."""

    names: tuple[str, ...]
    x_MS: NDArray[np.float64]
    degradation_M: NDArray[np.float64]
    resolution_S: NDArray[np.float64]
    direct_S: NDArray[np.bool_]


def matrix(summaries: Sequence[Summary], detectors: Iterable[Detector] = DETECTORS) -> Matrix:
    """Return the summaries' scalars, in the order in which detectors first give them."""
    chosen = tuple(detectors)
    tables = [scalars_of(summary, chosen) for summary in summaries]
    names = tuple(dict.fromkeys(name for table in tables for name in table))
    rows = [[table[name].value if name in table else np.nan for name in names] for table in tables]
    kinds = {name: scalar for table in tables for name, scalar in table.items()}
    return Matrix(
        names,
        np.array(rows, dtype=np.float64).reshape(len(summaries), len(names)),
        np.array([degradation(summary) for summary in summaries]),
        np.array([kinds[name].resolution for name in names]),
        np.array([kinds[name].direct for name in names], dtype=np.bool_),
    )
