"""Conformal p-values: exact on numbers by hand, valid by simulation, and no claim beyond the bank's size."""

import numpy as np
import pytest

from ft_audit.agent.risk.conformal import p_value, risk, smallest_rate, supports


@pytest.mark.parametrize(("score", "p"), [(5.0, 1 / 5), (4.0, 2 / 5), (2.5, 3 / 5), (1.0, 1.0), (-7.0, 1.0)])
def test_the_p_value_is_exact_and_ties_count_against_being_unusual(score: float, p: float) -> None:
    assert p_value(score, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(p)


def test_without_a_bank_the_p_value_says_nothing() -> None:
    assert p_value(1e9, []) == 1.0


def test_exchangeable_scores_get_a_valid_p_value() -> None:
    rng = np.random.default_rng(2)
    drawn = rng.normal(size=(4000, 20))
    p = np.array([p_value(one[0], one[1:].tolist()) for one in drawn])
    for rate in (0.05, 0.1, 0.25, 0.5):
        # Without ties it is exactly uniform on 1/20, ..., 1; three standard errors of 4,000 draws.
        assert (p <= rate + 1e-12).mean() == pytest.approx(rate, abs=3 * np.sqrt(rate * (1 - rate) / 4000))


def test_ties_only_make_it_more_careful() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 3, size=(2000, 20)).astype(float)
    p = np.array([p_value(one[0], one[1:].tolist()) for one in drawn])
    assert (p <= 0.1).mean() <= 0.1


def test_a_claim_takes_a_bank_of_its_size() -> None:
    assert not supports(0.01, 98) and supports(0.01, 99)
    assert not supports(0.05, 18) and supports(0.05, 19)
    assert not supports(1.0, 0)
    assert smallest_rate(99) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("p", "stated"), [(1, 0.0), (0.5, 1.3), (0.1, 4.3), (0.05, 5.7), (0.02, 7.4), (0.01, 8.7), (0.005, 10.0)]
)
def test_the_risk_is_what_is_stated(p: float, stated: float) -> None:
    assert risk(p) == pytest.approx(stated, abs=0.05)


def test_the_risk_falls_as_p_rises_and_stays_within_its_range() -> None:
    risks = [risk(p) for p in np.geomspace(1e-6, 1, 50)]
    assert risks == sorted(risks, reverse=True) and (min(risks), max(risks)) == (0.0, 10.0)
    assert f"{risk(1):.1f}" == "0.0"


def test_a_small_bank_cannot_give_a_high_risk() -> None:
    assert risk(p_value(1e9, [0.0] * 9)) == risk(smallest_rate(9)) == pytest.approx(4.3, abs=0.05)
    assert risk(p_value(1e9, [0.0] * 199)) == pytest.approx(10.0)
