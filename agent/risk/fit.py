"""Fitting a score: the units of benign members, and the weights that tell known attacks from them."""

# Shapes: M members, S scalars.

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.detectors.matrix import Matrix
from ft_audit.agent.risk.discriminant import fit_weights
from ft_audit.agent.risk.scale import Scale, fit_scale


def fit_score(
    data: Matrix, benign_M: NDArray[np.bool_], malicious_M: NDArray[np.bool_]
) -> tuple[Scale, NDArray[np.float64]]:
    """Return the scale of the benign members and the weights [S]; equal ones without a malicious member."""
    scale = fit_scale(data.x_MS[benign_M], data.degradation_M[benign_M], data.resolution_S)
    seen_M = benign_M | malicious_M
    units_MS = scale.units(data.x_MS[seen_M], data.degradation_M[seen_M])
    return scale, fit_weights(units_MS, malicious_M[seen_M])
