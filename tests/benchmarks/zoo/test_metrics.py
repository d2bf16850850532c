"""Figures of detection and their intervals, beside scipy's and numbers by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ft_audit.benchmarks.zoo import metrics
from ft_audit.benchmarks.zoo.metrics import auroc, clopper_pearson, cluster_bootstrap, compare


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1), (7, 99)])
def test_the_exact_interval_is_scipy_s(successes: int, trials: int) -> None:
    found = clopper_pearson(successes, trials)
    known = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((successes / trials, known.low, known.high))


def test_the_exact_interval_at_its_ends() -> None:
    # The rule of three, exactly: 1 - 0.025^(1/10).
    assert clopper_pearson(0, 10)[1:] == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert clopper_pearson(10, 10)[1:] == pytest.approx((0.6915, 1.0), abs=1e-4)
    nothing = clopper_pearson(0, 0)
    assert math.isnan(nothing.value) and nothing[1:] == (0.0, 1.0)


def test_auroc_counts_pairs_and_ties_a_half() -> None:
    malicious_AB = np.array([[3.0, 3.0], [1.0, 1.0]])
    benign_AB = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert compare(malicious_AB, benign_AB).tolist() == [[1, 1], [0.5, 0]]
    assert auroc(compare(malicious_AB, benign_AB)) == pytest.approx(2.5 / 4)
    assert math.isnan(auroc(np.zeros((0, 3))))


def mean_of(values: list[float]) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda a, b: float(np.array(values)[a].mean())


def test_the_bootstrap_is_reproducible() -> None:
    values = np.random.default_rng(0).normal(size=12).tolist()
    clusters = [f"family {i}" for i in range(12)]
    once, again, other = (cluster_bootstrap(clusters, [], mean_of(values), seed=s) for s in (0, 0, 1))
    assert once == again and once[1:] != other[1:]
    assert once.value == pytest.approx(np.mean(values)) and once.low < once.value < once.high


def test_whole_clusters_are_drawn_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 50)
    ours, theirs = ["a", "a", "b", "b", "b"], ["x", "y", "y"]
    seen = []

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        seen.append((a, b))
        return 0.0

    cluster_bootstrap(ours, theirs, statistic)
    assert len(seen) == 51
    for a, b in seen:
        count_a, count_b = np.bincount(a, minlength=5), np.bincount(b, minlength=3)
        assert (
            count_a[0] == count_a[1] and count_a[2] == count_a[3] == count_a[4] and count_b[1] == count_b[2]
        )
        assert count_a[0] + count_a[2] == 2 and count_b[0] + count_b[1] == 2
    assert len({tuple(sorted(a)) for a, _ in seen}) > 1


def test_families_that_fail_together_widen_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 500)
    caught = [1.0] * 6 + [0.0] * 6
    together = cluster_bootstrap([f"{i // 6}" for i in range(12)], [], mean_of(caught))
    apart = cluster_bootstrap([f"{i}" for i in range(12)], [], mean_of(caught))
    assert together.high - together.low > apart.high - apart.low
