"""Benign units: centred, of unit spread, never finer than a scalar's own steps, clumsiness taken off."""

import numpy as np
import pytest

from ft_audit.agent.risk.scale import HIGHEST, LOWEST, fit_scale

STEP = 1e-6


def benign(seed: int = 0, num_members: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Three scalars of different place and spread [M, 3], and members as clumsy as each other [M]."""
    rng = np.random.default_rng(seed)
    x_MS = rng.normal(size=(num_members, 3)) * [0.01, 1.0, 50.0] + [5.0, 0.0, -300.0]
    return x_MS, np.full(num_members, -2.0)


def test_a_benign_population_is_centred_with_unit_spread() -> None:
    x_MS, same_M = benign()
    units_MS = fit_scale(x_MS, same_M, np.full(3, STEP)).units(x_MS, same_M)
    np.testing.assert_allclose(np.median(units_MS, axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(1.4826 * np.median(np.abs(units_MS), axis=0), 1, rtol=1e-9)


def test_units_do_not_depend_on_a_scalar_s_own() -> None:
    x_MS, same_M = benign()
    once = fit_scale(x_MS, same_M, np.full(3, STEP)).units(x_MS, same_M)
    again = fit_scale(7 * x_MS + 3, same_M, np.full(3, STEP)).units(7 * x_MS + 3, same_M)
    np.testing.assert_allclose(once, again, atol=1e-9)


def test_the_resolution_floors_the_spread() -> None:
    x_MS = np.full((12, 1), 0.25)
    x_MS[:, 0] += np.linspace(-1e-5, 1e-5, 12)
    scale = fit_scale(x_MS, np.zeros(12), np.array([0.1]))
    assert scale.spread_S == pytest.approx([0.1])
    assert scale.units(np.array([[0.45]]), np.zeros(1))[0, 0] == pytest.approx(2.0)


def test_where_most_members_agree_the_standard_deviation_is_the_spread() -> None:
    x_MS = np.array([[0.0]] * 6 + [[1.0]] * 3)
    assert fit_scale(x_MS, np.zeros(9), np.array([STEP])).spread_S == pytest.approx([x_MS.std()])


def test_a_scalar_that_runs_away_is_clipped() -> None:
    x_MS, same_M = benign()
    scale = fit_scale(x_MS, same_M, np.full(3, STEP))
    far = np.array([[1e9, -1e9, -300.0]])
    assert scale.units(far, np.array([-2.0]))[0, :2].tolist() == [HIGHEST, LOWEST]


def test_a_scalar_that_follows_degradation_is_taken_off() -> None:
    rng = np.random.default_rng(1)
    clumsy_M = rng.uniform(-2, 2, 60)
    x_MS = (3 * clumsy_M + rng.normal(scale=0.3, size=60))[:, None]
    scale = fit_scale(x_MS, clumsy_M, np.array([STEP]))
    # The ridge keeps a tenth of the covariate's variance back.
    assert scale.slope_S[0] == pytest.approx(3 / 1.1, abs=0.1)
    as_expected, for_no_reason = (scale.units(np.array([[6.0]]), np.array([c]))[0, 0] for c in (2.0, 0.0))
    assert abs(as_expected) < 2 < 6 < for_no_reason


def test_few_members_have_no_slope() -> None:
    clumsy_M = np.linspace(-1, 1, 9)
    assert fit_scale(3 * clumsy_M[:, None], clumsy_M, np.array([STEP])).slope_S.tolist() == [0.0]
    clumsy_M = np.linspace(-1, 1, 10)
    assert fit_scale(3 * clumsy_M[:, None], clumsy_M, np.array([STEP])).slope_S[0] > 2


def test_what_is_unknown_adds_nothing() -> None:
    x_MS, same_M = benign()
    whole = fit_scale(x_MS[:100], same_M[:100], np.full(3, STEP))
    holed_MS = x_MS.copy()
    holed_MS[100:, 0] = np.nan  # half of the members lack the first scalar
    holed_MS[:, 2] = np.nan  # nobody has the last
    scale = fit_scale(holed_MS, same_M, np.full(3, STEP))
    assert (scale.centre_S[0], scale.spread_S[0]) == pytest.approx((whole.centre_S[0], whole.spread_S[0]))
    units_MS = scale.units(np.array([[np.nan, 0.0, np.nan]]), np.array([-2.0]))
    assert units_MS[0, 0] == units_MS[0, 2] == 0 and np.isfinite(units_MS).all()
