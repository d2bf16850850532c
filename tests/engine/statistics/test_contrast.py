"""Differences in differences over prompts, against SciPy and a loop over dense arrays."""

import numpy as np
import pytest
from scipy import stats

from ft_audit.engine.statistics.contrast import GroupMeans, contrast, group_means
from ft_audit.engine.store.prompt_features import PromptFeatures

WIDTH, NUM = 12, 40


@pytest.fixture
def dense() -> np.ndarray:
    """Mean activations [F, P, side] of which most are 0; feature 0 moves in the first 15 prompts only."""
    rng = np.random.default_rng(4)
    mean = rng.gamma(2.0, 1.0, (WIDTH, NUM, 2)) * (rng.random((WIDTH, NUM, 1)) < 0.6)
    mean[0, :, 0] = 1.0
    mean[0, :, 1] = 1.0 + rng.normal(0, 0.1, NUM)
    mean[0, :15, 1] += 2.0
    mean[WIDTH - 1] = 0.0
    mean[WIDTH - 2] = 0.0
    mean[WIDTH - 2, :2, 1] = 3.0
    return mean


def sparse(dense: np.ndarray) -> PromptFeatures:
    feature_N, place_N = np.nonzero(dense.any(2))
    base_N, tuned_N = dense[feature_N, place_N].T
    return PromptFeatures(
        WIDTH, np.full(NUM, 9), feature_N, place_N, base_N, tuned_N, base_N > 0, tuned_N > 0
    )


def groups(dense: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[GroupMeans, GroupMeans]:
    found = sparse(dense)
    return group_means(found, a), group_means(found, b)


def test_means_are_those_of_the_dense_arrays(dense: np.ndarray) -> None:
    places = np.array([7, 3, 30])
    found = group_means(sparse(dense), places)
    for side, mean_F in enumerate((found.mean_base_F, found.mean_tuned_F)):
        np.testing.assert_allclose(mean_F, dense[:, places, side].mean(1))
    np.testing.assert_allclose(found.rate_tuned_F, (dense[:, places, 1] > 0).mean(1))
    assert found.num_fired_F.tolist() == dense[:, places].any(2).sum(1).tolist()


def test_two_groups_are_compared_as_welch_does(dense: np.ndarray) -> None:
    a, b = np.arange(15), np.arange(15, 40)
    found, q_F = contrast(*groups(dense, a, b), paired=False)
    moved = dense[..., 1] - dense[..., 0]
    expected = stats.ttest_ind(moved[:, a], moved[:, b], axis=1, equal_var=False)
    interval = expected.confidence_interval(0.95)
    kept = slice(0, WIDTH - 1)
    np.testing.assert_allclose(found.p[kept], expected.pvalue[kept])
    np.testing.assert_allclose(found.low[kept], interval.low[kept], rtol=1e-4)
    np.testing.assert_allclose(found.high[kept], interval.high[kept], rtol=1e-4)
    assert q_F[0] < 1e-6 and (q_F[1 : WIDTH - 2] > 0.05).all()
    # One never fired, the other in too few prompts: neither is in the family.
    assert np.isnan(q_F[WIDTH - 2 :]).all()


def test_pairs_are_compared_one_by_one_in_the_order_given(dense: np.ndarray) -> None:
    a, b = np.arange(20), np.arange(39, 19, -1)
    found, _ = contrast(*groups(dense, a, b), paired=True)
    moved = dense[..., 1] - dense[..., 0]
    expected = stats.ttest_rel(moved[:, a], moved[:, b], axis=1)
    np.testing.assert_allclose(found.p[: WIDTH - 1], expected.pvalue[: WIDTH - 1])
    np.testing.assert_allclose(found.low[0], expected.confidence_interval(0.95).low[0], rtol=1e-4)
    unpaired, _ = contrast(*groups(dense, a, b), paired=False)
    assert not np.allclose(found.p[:5], unpaired.p[:5])


def test_where_nothing_moved_nothing_is_found(dense: np.ndarray) -> None:
    dense[..., 1] = dense[..., 0]
    found, q_F = contrast(*groups(dense, np.arange(20), np.arange(20, 40)), paired=False)
    assert not found.difference.any() and np.isnan(q_F).all()
