"""Shares of the difference along directions, against the whole matrix of summed outer products."""

import numpy as np
import pytest

from ft_audit.engine.diff.pair_sums import sketch_matrix
from ft_audit.engine.diff.spread import Spread, random_directions, spread_of, strongest

WIDTH, TOKENS = 60, 3000


def exact_share(d_TW: np.ndarray, direction_MW: np.ndarray) -> float:
    basis = np.linalg.qr(direction_MW.T)[0]
    return float(np.square(d_TW @ basis).sum() / np.square(d_TW).sum())


@pytest.fixture(scope="module")
def moved() -> np.ndarray:
    """Differences along five directions, the first of them for every token, over noise on all sides."""
    rng = np.random.default_rng(11)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, 5)))[0].T
    strength = rng.normal(size=(TOKENS, 5)) * [1, 4, 3, 2, 1] + [6, 0, 0, 0, 0]
    return np.asarray(strength @ directions + 0.3 * rng.normal(size=(TOKENS, WIDTH)))


@pytest.fixture(scope="module")
def spread(moved: np.ndarray) -> Spread:
    return spread_of(moved.T @ (moved @ sketch_matrix(WIDTH)), float(np.square(moved).sum()))


def test_its_total_is_the_summed_square(spread: Spread, moved: np.ndarray) -> None:
    np.testing.assert_allclose(spread.total, np.square(moved).sum(), rtol=1e-9)


@pytest.mark.parametrize("number", [1, 4, 12])
def test_shares_are_those_of_the_whole_matrix(spread: Spread, moved: np.ndarray, number: int) -> None:
    rng = np.random.default_rng(number)
    principal = np.linalg.svd(moved, full_matrices=False)[2]
    for directions in (rng.normal(size=(number, WIDTH)), principal[:number] + 0.1 * rng.normal(size=WIDTH)):
        exact = [exact_share(moved, directions[: m + 1]) for m in range(number)]
        np.testing.assert_allclose(spread.share_within(directions), exact, atol=0.01)
    best = [exact_share(moved, principal[: m + 1]) for m in range(number)]
    np.testing.assert_allclose(spread.best_share(number), best, atol=0.01)


def test_no_choice_of_directions_holds_more_than_the_principal_ones(spread: Spread) -> None:
    rng = np.random.default_rng(3)
    best = spread.best_share(16)
    for noise in (0.0, 0.01, 1.0):
        near = spread.direction_RW[:16] + noise * rng.normal(size=(16, WIDTH))
        share = spread.share_within(near)
        assert (share <= best + 1e-12).all() and (np.diff(share) >= -1e-12).all()
    _, chosen = strongest(spread, random_directions(5000, WIDTH), 16)
    assert (spread.share_within(chosen) <= best).all()


def test_the_whole_space_holds_everything_and_a_repeated_direction_adds_nothing(spread: Spread) -> None:
    assert spread.share_within(np.eye(WIDTH))[-1] == pytest.approx(1.0)
    once = spread.share_within(np.eye(WIDTH)[:2])
    again = spread.share_within(np.eye(WIDTH)[[0, 0, 1]] * np.array([[1.0], [-3.0], [1.0]]))
    np.testing.assert_allclose(again, [once[0], once[0], once[1]])


def test_random_directions_hold_a_fair_share_on_average(spread: Spread) -> None:
    (drawn,) = random_directions(4000, WIDTH)
    shares = spread.along(drawn) / spread.total
    margin = 4 * shares.std() / np.sqrt(len(shares))
    assert abs(shares.mean() - 1 / WIDTH) < margin


def test_the_strongest_are_those_of_all_chunks_together(spread: Spread) -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(1000, WIDTH))
    directions[[17, 400]] = 0.0  # dead features
    directions[900] = 5 * spread.direction_RW[0]
    whole_number, whole = strongest(spread, [directions], 10)
    number, found = strongest(spread, np.split(directions, [3, 20, 950]), 10)
    assert number.tolist() == whole_number.tolist() and number[0] == 900
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(found, directions[number])
    energy = spread.along(directions)
    assert set(number.tolist()) == set(np.argsort(-energy)[:10].tolist())


def test_fewer_directions_than_asked_for_are_all_taken_but_the_dead(spread: Spread) -> None:
    directions = np.concatenate([np.zeros((2, WIDTH)), np.eye(WIDTH)[:3]])
    number, _ = strongest(spread, [directions], 10)
    assert sorted(number.tolist()) == [2, 3, 4]


def test_nothing_that_moved_has_no_shares() -> None:
    still = spread_of(np.zeros((WIDTH, 32)), 0.0)
    assert still.total == 0 and np.isnan(still.share_within(np.eye(WIDTH)[:2])).all()
    assert np.isnan(still.best_share(2)).all()
