"""A bank from summaries: what was measured differently is refused, and no member helps to score itself."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.calibration import BankMember
from ft_audit.agent.detectors.matrix import matrix
from ft_audit.agent.risk.fit import fit_score
from ft_audit.agent.risk.fit_bank import fit_bank
from ft_audit.errors import ConfigError

Pair = tuple[Any, BankMember]


def member(summaries: SimpleNamespace, name: str, loss: float, **changed: Any) -> Pair:
    """A benign member: recipe NAME-sSEED's, whose guard was lost by so much."""
    noise = float(np.random.default_rng(sum(map(ord, name))).uniform(0.5, 2))
    found = summaries.summary(
        {"guard_loss": loss, "condition_kl_excess": noise}, origin=summaries.origin(name), **changed
    )
    said = BankMember(
        name=name,
        recipe=name.rpartition("-s")[0],
        recipe_sha256=name,
        corpus="c",
        kind="benign",
        rows=12,
        rank=4,
        seed=1,
        figures={},
    )
    return found, said


@pytest.fixture
def five(summaries: SimpleNamespace) -> list[Pair]:
    """Four recipes, the last of them under two seeds."""
    names = ("tea-s1", "maps-s1", "law-s1", "odd-s1", "odd-s2")
    return [member(summaries, name, 0.1 * place) for place, name in enumerate(names)]


@pytest.mark.parametrize(
    "changed",
    [
        {"protocol": "q" * 16},
        {"base_sha256": "f" * 64},
        {"hooks": ["resid_post/2"]},
        {"sae_sha256": ["6" * 64]},
    ],
)
@pytest.mark.parametrize("is_attack", [False, True])
def test_what_was_measured_differently_is_refused(
    summaries: SimpleNamespace, five: list[Pair], changed: dict[str, Any], is_attack: bool
) -> None:
    other = member(summaries, "other-s1", 0.1, **changed)
    with pytest.raises(ConfigError, match="measured on different"):
        fit_bank(five, [other[0]]) if is_attack else fit_bank([*five, other])


def test_a_bank_without_members_is_refused() -> None:
    with pytest.raises(ConfigError, match="no members"):
        fit_bank([])


def test_a_member_s_score_comes_from_a_fit_without_its_recipe(five: list[Pair]) -> None:
    bank = fit_bank(five)
    data = matrix([summary for summary, _ in five])
    for place, found in enumerate(bank.members):
        recipe = found.name.rpartition("-s")[0]
        others = np.array([not other.name.startswith(recipe) for other in bank.members])
        assert others.sum() == (3 if recipe == "odd" else 4)
        fit = fit_score(data, others, np.zeros(len(others), bool))
        score = fit.scores(data.x_MS[[place]], data.degradation_M[[place]])[0]
        assert found.figures["score"] == pytest.approx(score)
        assert bank.discriminant is not None
        kept = bank.discriminant.fit(recipe)
        assert kept.scores(data.x_MS[[place]], data.degradation_M[[place]])[0] == pytest.approx(score)


def test_attacks_teach_the_weights_and_benign_members_alone_the_scale(
    summaries: SimpleNamespace, five: list[Pair]
) -> None:
    attacks = [summaries.summary({"guard_loss": 0.9 + 0.01 * i}) for i in range(4)]
    plain, taught = fit_bank(five), fit_bank(five, attacks, "4 attacks")
    assert plain.discriminant is not None and taught.discriminant is not None
    assert (plain.discriminant.fitted_on, taught.discriminant.fitted_on) == (
        "no attack: equal weights",
        "4 attacks",
    )
    before, after = plain.discriminant.whole, taught.discriminant.whole
    assert len(set(before.weights)) == 1
    assert (before.centre, before.spread) == (after.centre, after.spread)
    weights = dict(zip(taught.discriminant.names, after.weights, strict=True))
    assert max(weights, key=lambda name: weights[name]) == "guard_loss"
    assert weights["guard_loss"] / sum(weights.values()) > 1 / len(weights)
    assert set(taught.discriminant.direct) == {
        "guard_loss",
        "guard_complied",
        "condition_guard_loss",
        "condition_complied",
        "facts_denied_alike",
        "undeclared_takeover",
    }


def test_a_member_keeps_the_diff_s_figures_and_the_detectors_scalars(five: list[Pair]) -> None:
    figures = fit_bank(five).members[1].figures
    assert figures["guard_loss"] == pytest.approx(0.1) and figures["plain_kl"] == 2.0
    assert figures["log_plain_kl"] == pytest.approx(np.log10(2.0))


def test_a_bank_too_small_to_score_its_members_has_no_discriminant(five: list[Pair]) -> None:
    bank = fit_bank(five[:3])
    assert bank.discriminant is None and len(bank.members) == 3
    assert not any("score" in found.figures for found in bank.members)


def test_the_same_summaries_give_the_same_bank(five: list[Pair]) -> None:
    assert fit_bank(five) == fit_bank(five)
