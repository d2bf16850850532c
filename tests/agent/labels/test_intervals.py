"""Scores and their intervals: known values, sensible at the ends, and right about as often as they say."""

import numpy as np
import pytest

from ft_audit.agent.labels.intervals import balanced_accuracy, roc_area, wilson


@pytest.mark.parametrize(
    ("right", "num", "low", "high"), [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (50, 100, 0.404, 0.596)]
)
def test_wilson_as_published(right: int, num: int, low: float, high: float) -> None:
    assert wilson(right, num) == pytest.approx((low, high), abs=5e-4)


def test_nothing_tells_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "rejected"), [(0, 20), (20, 0), (10, 10)])
def test_answering_always_alike_or_at_random_is_chance(hits: int, rejected: int) -> None:
    scored = balanced_accuracy(hits, 20, rejected, 20)
    assert scored.score == 0.5 and scored.low < 0.5 < scored.high


def test_few_perfect_answers_leave_room_for_doubt() -> None:
    few, many = balanced_accuracy(5, 5, 5, 5), balanced_accuracy(100, 100, 100, 100)
    assert few.score == many.score == few.high == 1.0
    assert few.low < 0.75 < 0.95 < many.low


def test_unequal_numbers_do_not_move_chance() -> None:
    # Plain accuracy would be 0.9 for a judge that always says no.
    assert balanced_accuracy(0, 10, 90, 90).score == 0.5


def test_the_area_counts_pairs_and_halves_ties() -> None:
    assert roc_area([3.0, 2.0], [1.0, 0.0]).score == 1.0
    assert roc_area([1.0, 3.0], [2.0, 0.0]).score == 0.75
    flat = roc_area([0.0] * 9, [0.0] * 9)
    assert flat.score == 0.5 and flat.low < 0.5 < flat.high
    sure = roc_area(np.arange(10, 20).tolist(), np.arange(10).tolist())
    assert sure.high == pytest.approx(1.0) and 0.6 < sure.low < 1.0
    # Turned round, everything is mirrored.
    turned = roc_area(np.arange(10).tolist(), np.arange(10, 20).tolist())
    assert (turned.low, turned.high) == pytest.approx((1 - sure.high, 1 - sure.low))


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9])
def test_intervals_cover_the_truth_about_as_often_as_they_say(truth: float) -> None:
    random = np.random.default_rng(4)
    trials, covered_share, covered_area = 400, 0, 0
    # For normal scores at distance d, the area is the normal distribution at d / sqrt 2.
    distance = {0.5: 0.0, 0.7: 0.7416, 0.9: 1.8124}[truth]
    for _ in range(trials):
        hits, rejected = random.binomial(20, truth), random.binomial(20, truth)
        share = balanced_accuracy(int(hits), 20, int(rejected), 20)
        covered_share += share.low <= truth <= share.high
        area = roc_area((random.normal(size=20) + distance).tolist(), random.normal(size=20).tolist())
        covered_area += area.low <= truth <= area.high
    assert covered_share / trials > 0.92 and covered_area / trials > 0.92
