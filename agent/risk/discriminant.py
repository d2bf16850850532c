"""One score from many scalars: a logistic discriminant that only adds suspicion, shrunk to equal weights."""

# Shapes: M members, S scalars.

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

STEPS = 300
SHRINKAGE = 0.05
"""Of the penalty on the distance from equal weights, per member: chosen beforehand, not tuned."""


def equal_weights(num_scalars: int) -> FloatArray:
    """Return the weights that know nothing: each scalar alike, of length 1."""
    return np.full(num_scalars, 1 / np.sqrt(max(num_scalars, 1)))


def fit_weights(
    units_MS: FloatArray, malicious_M: NDArray[np.bool_], shrinkage: float = SHRINKAGE
) -> FloatArray:
    """Return non-negative weights [S] of the discriminant.

    Minimises the mean logistic loss of `units_MS @ w + b`, both classes weighted alike, plus
    `shrinkage * |w - w0|^2` with w0 the equal weights, over w >= 0, by accelerated projected gradient (Beck
    and Teboulle 2009, FISTA). A scalar's direction is known beforehand, so that a negative weight could only
    be chance; with one class missing the equal weights come back.
    """
    num_members, num_scalars = units_MS.shape
    start_S = equal_weights(num_scalars)
    if malicious_M.all() or not malicious_M.any():
        return start_S
    label_M = np.where(malicious_M, 1.0, -1.0)
    share = malicious_M.mean()
    weight_M = np.where(malicious_M, 0.5 / share, 0.5 / (1 - share)) / num_members
    x_MS = np.column_stack([units_MS, np.ones(num_members)])
    penalty_S = np.append(np.full(num_scalars, shrinkage), 0.0)
    target_S = np.append(start_S, 0.0)
    lipschitz = float(np.linalg.norm(x_MS * np.sqrt(weight_M)[:, None], 2) ** 2 / 4 + 2 * shrinkage)
    w_S, moving_S, momentum = target_S.copy(), target_S.copy(), 1.0
    for _ in range(STEPS):
        # Two plain functions are twice as fast as numpy's clip on so few numbers.
        margin_M = np.minimum(np.maximum(label_M * (x_MS @ moving_S), -30.0), 30.0)
        slope_M = -weight_M * label_M / (1 + np.exp(margin_M))
        gradient_S = x_MS.T @ slope_M + 2 * penalty_S * (moving_S - target_S)
        after_S = moving_S - gradient_S / lipschitz
        after_S[:-1] = np.maximum(after_S[:-1], 0.0)
        further = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        moving_S = after_S + (momentum - 1) / further * (after_S - w_S)
        w_S, momentum = after_S, further
    return w_S[:-1]
