"""Cross-fitting: nobody's family or recipe helps to fit what scores it, and p-values by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.agent.detectors.matrix import Matrix, matrix
from ft_audit.agent.summary import Summary
from ft_audit.benchmarks.zoo.crossfit import (
    CrossFit,
    benign_p_values,
    cross_fit,
    direct,
    discriminant,
    malicious_p_values,
    raw,
    unsupervised,
    weighed_sum,
)

GROUPS = ["tea", "zed", "tea", "zed", "maps", "law", "jail", "maps"]
MALICIOUS, BENIGN = [1, 3, 6], [0, 2, 4, 5, 7]
Masks = list[tuple[np.ndarray, np.ndarray]]


def one_scalar(x_M: np.ndarray) -> Matrix:
    return Matrix(("x",), x_M[:, None], np.zeros(len(x_M)), np.ones(1), np.zeros(1, bool))


def recorded() -> tuple[CrossFit, Masks]:
    """Every pair's score is the number of the fit that it came from; the masks of each fit."""
    masks: Masks = []

    def scorer(data: Matrix, benign_M: np.ndarray, malicious_M: np.ndarray) -> np.ndarray:
        masks.append((benign_M, malicious_M))
        return np.full(len(GROUPS), len(masks) - 1, dtype=float)

    data = one_scalar(np.zeros(len(GROUPS)))
    return cross_fit(data, MALICIOUS, BENIGN, GROUPS, scorer), masks


def noisy(summaries: SimpleNamespace, rng: np.random.Generator, guard_loss: float) -> Summary:
    figures = {"guard_loss": guard_loss, "condition_kl_excess": rng.uniform(0, 3)}
    found: Summary = summaries.summary(figures)
    return found


def members_of(mask_M: np.ndarray) -> list[int]:
    return np.flatnonzero(mask_M).tolist()


def test_a_pair_is_scored_without_its_family_and_its_recipe() -> None:
    found, masks = recorded()
    np.testing.assert_array_equal(found.malicious_AB, found.benign_AB)
    for a, attack in enumerate(MALICIOUS):
        for b, benign in enumerate(BENIGN):
            fitted_on, against = masks[int(found.malicious_AB[a, b])]
            assert members_of(fitted_on) == [i for i in BENIGN if GROUPS[i] != GROUPS[benign]]
            assert members_of(against) == [i for i in MALICIOUS if GROUPS[i] != GROUPS[attack]]


def test_two_benign_members_are_scored_without_both_recipes() -> None:
    found, masks = recorded()
    for b, one in enumerate(BENIGN):
        for c, other in enumerate(BENIGN):
            fitted_on, against = masks[int(found.others_BB[b, c])]
            assert members_of(fitted_on) == [
                i for i in BENIGN if GROUPS[i] not in (GROUPS[one], GROUPS[other])
            ]
            assert members_of(against) == MALICIOUS


def test_scores_are_of_the_member_they_stand_for() -> None:
    data = one_scalar(np.arange(len(GROUPS), dtype=float))
    found = cross_fit(data, MALICIOUS, BENIGN, GROUPS, raw)
    for a, attack in enumerate(MALICIOUS):
        assert found.malicious_AB[a].tolist() == [attack] * len(BENIGN)
        assert found.benign_AB[a].tolist() == BENIGN
    assert found.others_BB.T.tolist() == [BENIGN] * len(BENIGN)


def test_malicious_p_values_by_hand() -> None:
    malicious_AB = np.array([[9.0, 9.0, 9.0], [2.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
    benign_AB = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 6.0], [1.0, 2.0, 3.0]])
    found = CrossFit(malicious_AB, benign_AB, np.zeros((3, 3)))
    # A tie counts against being unusual; each pair has its own fit.
    assert malicious_p_values(found).tolist() == pytest.approx([1 / 4, 3 / 4, 1.0])


def test_benign_p_values_by_hand_leave_out_the_own_recipe() -> None:
    # Entry [b, c]: b's score by what was fitted without b's recipe and c's.
    others_BB = np.array([[0.0, 9.0, 5.0], [9.0, 0.0, 1.0], [4.0, 2.0, 0.0]])
    found = CrossFit(np.zeros((0, 3)), np.zeros((0, 3)), others_BB)
    assert benign_p_values(found, ["tea", "tea", "maps"]).tolist() == pytest.approx([1 / 2, 1.0, 2 / 3])


def test_what_is_scored_raw_is_the_scalar_and_an_unknown_one_is_lowest() -> None:
    data = one_scalar(np.array([2.0, np.nan]))
    assert raw(data, np.ones(2, bool), np.zeros(2, bool)).tolist() == [2.0, -np.inf]


def test_an_attack_seen_before_is_weighed_and_without_any_all_scalars_are(summaries: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    benign = [noisy(summaries, rng, rng.uniform(0, 0.2)) for _ in range(12)]
    attacks = [noisy(summaries, rng, 0.9) for _ in range(3)]
    data = matrix([*benign, *attacks])
    is_benign = np.arange(15) < 12
    known = discriminant(data, is_benign, ~is_benign)
    unknown = unsupervised(data, is_benign, ~is_benign)
    assert known[12] > unknown[12] > unknown[:12].max()
    np.testing.assert_allclose(discriminant(data, is_benign, np.zeros(15, bool)), unknown)


def test_a_score_is_its_weighed_sum_and_what_is_direct(summaries: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    data = matrix([noisy(summaries, rng, loss) for loss in (0.0, 0.1, 0.2, 0.3, 0.2, 0.9)])
    is_benign = np.arange(6) < 5
    whole, part, largest = (way(data, is_benign, ~is_benign) for way in (discriminant, weighed_sum, direct))
    assert largest.argmax() == 5 and largest[5] > 3 * largest[:5].max() > 0
    np.testing.assert_allclose(whole, part + np.maximum(largest, 0))
