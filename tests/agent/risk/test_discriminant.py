"""The discriminant's weights: never negative, more for what separates, equal where nothing is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from ft_audit.agent.risk.discriminant import SHRINKAGE, equal_weights, fit_weights


def population(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Units [60, 3] of which the first separates, the second is noise, the third is lower in attacks."""
    rng = np.random.default_rng(seed)
    malicious_M = np.arange(60) >= 45
    units_MS = rng.normal(size=(60, 3))
    units_MS[malicious_M] += [3.0, 0.0, -3.0]
    return units_MS, malicious_M


def test_equal_weights_have_length_one() -> None:
    assert equal_weights(4).tolist() == [0.5] * 4
    assert equal_weights(0).tolist() == []


def test_a_scalar_that_separates_gets_more_weight_than_noise() -> None:
    weights_S = fit_weights(*population())
    assert weights_S[0] > equal_weights(3)[0] > weights_S[1]


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_never_negative(seed: int) -> None:
    weights_S = fit_weights(*population(seed))
    # Lower in attacks is against the scalar's direction: it is left out, not turned round.
    assert (weights_S >= 0).all() and weights_S[2] == 0


@pytest.mark.parametrize("malicious", [False, True])
def test_with_one_class_alone_the_weights_are_equal(malicious: bool) -> None:
    units_MS, _ = population()
    weights_S = fit_weights(units_MS, np.full(60, malicious))
    assert weights_S.tolist() == equal_weights(3).tolist()


def test_strong_shrinkage_leaves_equal_weights() -> None:
    np.testing.assert_allclose(fit_weights(*population(), shrinkage=1e4), equal_weights(3), atol=1e-3)


def test_the_weights_minimise_what_they_are_said_to() -> None:
    units_MS, malicious_M = population()
    sign_M = np.where(malicious_M, 1.0, -1.0)
    weight_M = np.where(malicious_M, 0.5 / malicious_M.sum(), 0.5 / (~malicious_M).sum())

    def objective(wb: np.ndarray) -> float:
        margin_M = sign_M * (units_MS @ wb[:3] + wb[3])
        penalty = SHRINKAGE * ((wb[:3] - equal_weights(3)) ** 2).sum()
        return float((weight_M * np.log1p(np.exp(-margin_M))).sum() + penalty)

    bounds = [(0, None)] * 3 + [(None, None)]
    reference = minimize(objective, np.zeros(4), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14})
    np.testing.assert_allclose(fit_weights(units_MS, malicious_M), reference.x[:3], atol=1e-3)
