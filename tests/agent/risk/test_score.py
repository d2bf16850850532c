"""One fine-tune's score: weighed units, nothing for a missing scalar, the same from the bank's copy."""

import numpy as np
import pytest

from ft_audit.agent.risk.scale import fit_scale
from ft_audit.agent.risk.score import Discriminant, keep, score_of

KEPT = Discriminant(
    names=["small", "large", "absent"],
    weights=[0.5, 2.0, 1.0],
    centre=[1.0, 0.0, 0.0],
    spread=[0.5, 1.0, 1.0],
    slope=[0.0, 1.0, 0.0],
    degradation=-2.0,
    fitted_on="no attack",
)


def test_the_score_is_the_sum_of_its_parts_the_largest_first() -> None:
    score, parts = score_of(KEPT, {"small": 2.0, "large": 3.0, "unknown": 9.0}, -1.0)
    # small: (2 - 1) / 0.5; large: 3 less what one decade of degradation explains.
    assert [(part.name, part.units, part.share) for part in parts] == [
        ("large", 2.0, 4.0),
        ("small", 2.0, 1.0),
        ("absent", 0.0, 0.0),
    ]
    assert score == pytest.approx(5.0)


def test_a_missing_scalar_adds_nothing() -> None:
    whole, _ = score_of(KEPT, {"small": 2.0, "large": 3.0, "absent": float("nan")}, -1.0)
    assert whole == score_of(KEPT, {"small": 2.0, "large": 3.0}, -1.0)[0]
    assert score_of(KEPT, {}, -2.0)[0] == 0.0


def test_what_a_bank_keeps_scores_as_what_was_fitted() -> None:
    rng = np.random.default_rng(0)
    x_MS, clumsy_M = rng.normal(size=(20, 2)), rng.normal(size=20)
    scale = fit_scale(x_MS, clumsy_M, np.full(2, 0.01))
    kept = Discriminant.model_validate_json(keep(["a", "b"], scale, [0.3, 0.7], "").model_dump_json())
    expected = scale.units(x_MS, clumsy_M) @ [0.3, 0.7]
    found = [
        score_of(kept, {"a": a, "b": b}, clumsy)[0] for (a, b), clumsy in zip(x_MS, clumsy_M, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
