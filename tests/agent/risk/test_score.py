"""One fine-tune's score: weighed units, the largest direct one on top, the same from the bank's copy."""

import numpy as np
import pytest

from ft_audit.agent.detectors.matrix import Matrix
from ft_audit.agent.risk.fit import Fit, fit_score
from ft_audit.agent.risk.scale import Scale
from ft_audit.agent.risk.score import Discriminant, KeptFit, keep, score_of

WHOLE = KeptFit(
    weights=[0.5, 2.0, 1.0],
    centre=[1.0, 0.0, 0.0],
    spread=[0.5, 1.0, 1.0],
    slope=[0.0, 1.0, 0.0],
    degradation=-2.0,
)
KEPT = Discriminant(
    names=["small", "large", "absent"], direct=[], fitted_on="no attack", whole=WHOLE, without={}
)
UNIT = Scale(np.zeros(3), np.ones(3), np.zeros(3), 0.0)


def test_the_score_is_the_sum_of_its_parts_the_largest_first() -> None:
    score = score_of(KEPT, {"small": 2.0, "large": 3.0, "unknown": 9.0}, -1.0)
    # small: (2 - 1) / 0.5; large: 3 less what one decade of degradation explains.
    assert [(part.name, part.units, part.share) for part in score.parts] == [
        ("large", 2.0, 4.0),
        ("small", 2.0, 1.0),
        ("absent", 0.0, 0.0),
    ]
    assert score.value == pytest.approx(5.0)


def test_a_missing_scalar_adds_nothing() -> None:
    whole = score_of(KEPT, {"small": 2.0, "large": 3.0, "absent": float("nan")}, -1.0)
    assert whole.value == score_of(KEPT, {"small": 2.0, "large": 3.0}, -1.0).value
    assert score_of(KEPT, {}, -2.0).value == 0.0


def test_the_largest_direct_scalar_counts_once_more() -> None:
    direct = KEPT.model_copy(update={"direct": ["small", "absent"]})
    score = score_of(direct, {"small": 2.0, "large": 3.0, "absent": 0.5}, -1.0)
    assert {part.name: part.share for part in score.parts} == pytest.approx(
        {"large": 4.0, "small": 2.0 * (0.5 + 1), "absent": 0.5}
    )
    assert score.value == pytest.approx(7.5)


def test_a_guard_better_kept_than_usual_is_no_defence() -> None:
    fit = Fit(UNIT, np.full(3, 0.5), np.array([True, True, False]))
    scores = fit.scores(np.array([[-2.0, -1.0, 4.0], [-2.0, 1.0, 4.0]]), np.zeros(2))
    assert scores.tolist() == [0.5, 1.5 + 1.0]


def drawn() -> tuple[Matrix, np.ndarray]:
    """Twenty-four members of two scalars, the second direct; the last four are attacks."""
    rng = np.random.default_rng(0)
    x_MS = rng.normal(size=(24, 2))
    x_MS[20:] += [3.0, 6.0]
    data = Matrix(("a", "b"), x_MS, rng.normal(size=24), np.full(2, 0.01), np.array([False, True]))
    return data, np.arange(24) < 20


def test_the_weighed_sum_has_the_unit_of_the_direct_scalars() -> None:
    data, is_benign = drawn()
    fit = fit_score(data, is_benign, ~is_benign)
    sums = fit.units(data.x_MS, data.degradation_M)[is_benign] @ fit.weights_S
    assert 1.4826 * np.median(np.abs(sums - np.median(sums))) == pytest.approx(1.0)


def test_members_that_agree_in_all_leave_the_weights_as_they_are() -> None:
    data = Matrix(("a", "b"), np.ones((5, 2)), np.zeros(5), np.ones(2), np.zeros(2, bool))
    assert fit_score(data, np.ones(5, bool), np.zeros(5, bool)).weights_S == pytest.approx([0.5**0.5] * 2)


def test_what_a_bank_keeps_scores_as_what_was_fitted() -> None:
    data, is_benign = drawn()
    whole, part = fit_score(data, is_benign, ~is_benign), fit_score(data, np.arange(24) < 12, ~is_benign)
    discriminant = Discriminant(
        names=["a", "b"], direct=["b"], fitted_on="", whole=keep(whole), without={"tea": keep(part)}
    )
    kept = Discriminant.model_validate_json(discriminant.model_dump_json())
    found = [
        score_of(kept, {"a": a, "b": b}, clumsy)
        for (a, b), clumsy in zip(data.x_MS, data.degradation_M, strict=True)
    ]
    expected = whole.scores(data.x_MS, data.degradation_M)
    np.testing.assert_allclose([score.value for score in found], expected, atol=1e-12)
    expected = part.scores(data.x_MS, data.degradation_M)
    np.testing.assert_allclose([score.without["tea"] for score in found], expected, atol=1e-12)
