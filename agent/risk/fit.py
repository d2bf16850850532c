"""Fitting a score: the units of benign members, and the weights that tell known attacks from them."""

# Shapes: M members, S scalars.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.detectors.matrix import Matrix
from ft_audit.agent.risk.discriminant import fit_weights
from ft_audit.agent.risk.scale import Scale, fit_scale, spread

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fit:
    """A score: the weighed sum of all scalars, and the largest of the direct ones on top.

    Weights are learnt from attacks that are known, so that the sum of many middling scalars drowns a single
    one that says all, of a kind of attack not known. The direct scalars measure what an attack is by its
    definition, whichever the attack; none of them has to wait until it was learnt.
    """

    scale: Scale
    weights_S: FloatArray
    direct_S: BoolArray

    def units(self, x_MS: FloatArray, degradation_M: FloatArray) -> FloatArray:
        """Return the scalars in benign units [M, S]."""
        return self.scale.units(x_MS, degradation_M)

    def effective_weights(self, units_MS: FloatArray) -> FloatArray:
        """Return what each scalar counts in each member [M, S]: its weight, and 1 more for the largest direct
        one where it is above the benign centre."""
        weights_MS = np.tile(self.weights_S, (len(units_MS), 1))
        if self.direct_S.any():
            direct_MS = np.where(self.direct_S, units_MS, -np.inf)
            best_M = direct_MS.argmax(axis=1)
            everyone_M = np.arange(len(units_MS))
            weights_MS[everyone_M, best_M] += direct_MS[everyone_M, best_M] > 0
        return weights_MS

    def scores(self, x_MS: FloatArray, degradation_M: FloatArray) -> FloatArray:
        """Return the score of each member [M]."""
        units_MS = self.units(x_MS, degradation_M)
        scores_M: FloatArray = (units_MS * self.effective_weights(units_MS)).sum(axis=1)
        return scores_M


def fit_score(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> Fit:
    """Return the score that the benign members scale and the malicious ones weigh.

    The weights are equal ones without a malicious member, and such that the weighed sum has a spread of 1
    among the benign members: it and the direct scalars are in one unit.
    """
    scale = fit_scale(data.x_MS[benign_M], data.degradation_M[benign_M], data.resolution_S)
    units_MS = scale.units(data.x_MS, data.degradation_M)
    seen_M = benign_M | malicious_M
    weights_S = fit_weights(units_MS[seen_M], malicious_M[seen_M])
    between = float(spread((units_MS[benign_M] @ weights_S)[:, None])[0])
    return Fit(scale, weights_S / (between or 1.0), data.direct_S)
