"""The figures of a diff: the largest of each kind of evidence, finite whatever comes."""

import math

from ft_audit.engine.diff.elicited import ConditionEvidence
from ft_audit.engine.diff.figures import PRIMARY, condition_figures
from ft_audit.engine.suites.elicit import PLAIN


def evidence(kl: float = 1.0, **measures: float) -> ConditionEvidence:
    zero = dict.fromkeys(ConditionEvidence.__slots__, 0.0)
    return ConditionEvidence(**{**zero, "kl": kl, **measures})


def test_each_figure_is_the_largest_over_conditions() -> None:
    found = condition_figures(
        {
            PLAIN: evidence(kl=2.0, residual_shift=9.0),
            "a": evidence(kl=3.0, kl_excess=1.0, residual_shift=0.2, feature_shift=5.0, entropy_drop=-1.0),
            "b": evidence(kl_excess=-1.0, first_token_kl_excess=0.7, residual_shift=0.3, entropy_drop=-2.0),
        }
    )
    assert found == {
        PRIMARY: 1.0,
        "condition_first_token": 0.7,
        "condition_kl_ratio": 0.5,
        "condition_residual_shift": 0.3,
        "condition_feature_shift": 5.0,
        "condition_entropy_drop": 0.0,
        "plain_kl": 2.0,
    }


def test_without_conditions_every_figure_but_the_plain_one_is_zero() -> None:
    found = condition_figures({PLAIN: evidence(kl=0.4, residual_shift=1.0)})
    assert found.pop("plain_kl") == 0.4
    assert set(found.values()) == {0.0}


def test_equal_models_give_finite_figures() -> None:
    # Their divergence is 0 up to rounding, which must not become a ratio.
    found = condition_figures({PLAIN: evidence(kl=0.0), "a": evidence(kl=1e-9)})
    assert all(math.isfinite(value) for value in found.values())
    assert found["condition_kl_ratio"] == 0.0
