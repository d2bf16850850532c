"""Synthetic features fire as the figures they are drawn from say, and the figures come back from them."""

from itertools import pairwise

import numpy as np
import pytest
import yaml

from ft_audit.benchmarks.storing.firing import Firing, fit, rates_within, stretched_rates
from ft_audit.benchmarks.storing.pair import SYNTHETIC, SuiteRuns, synthetic_runs
from ft_audit.benchmarks.storing.synthetic import Suite, draw_suite
from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.store import Store, decode_bf16

NUM_FEATURES, L0 = 500, 12.0


@pytest.fixture(scope="module")
def firing() -> Firing:
    return Firing.shipped()


@pytest.fixture(scope="module")
def suite(firing) -> Suite:
    return draw_suite(firing, 20_000, NUM_FEATURES, L0, 6000)


@pytest.fixture(scope="module")
def runs(suite, tmp_path_factory) -> SuiteRuns:
    with open_scheduler() as scheduler:
        return synthetic_runs(Store(tmp_path_factory.mktemp("synthetic")), suite, scheduler)


@pytest.mark.parametrize(("num_features", "l0"), [(4096, 78.0), (65_536, 64.0), (500, 3.0)])
def test_rates_sum_to_l0_under_the_most_frequent_feature(firing, num_features, l0):
    rate_F = stretched_rates(firing, num_features, l0)
    assert rate_F.sum() == pytest.approx(l0, rel=1e-6)
    assert rate_F[0] == pytest.approx(firing.rate_Q[0], rel=1e-3)
    assert (np.diff(rate_F) <= 0).all() and rate_F[-1] > 0
    within_F = rates_within(firing, rate_F)
    assert (within_F >= rate_F).all() and (within_F <= 1).all()


def test_whole_prompts_in_segments_of_like_lengths(suite):
    prompts = np.concatenate(suite.segments)
    assert np.array_equal(np.sort(prompts), np.arange(len(suite.length_P)))
    assert suite.num_tokens == pytest.approx(20_000, rel=0.1)
    edges = [(suite.length_P[part].min(), suite.length_P[part].max()) for part in suite.segments]
    assert len(edges) > 2
    assert all(high <= low for (_, high), (low, _) in pairwise(edges))
    assert any((np.diff(part) != 1).any() for part in suite.segments)


def test_a_segment_is_the_same_whoever_draws_it(suite):
    first, again, other = (suite.segment(1, side, SYNTHETIC) for side in ("base", "base", "tuned"))
    first.check()
    for found, expected in zip(first.features[SYNTHETIC], again.features[SYNTHETIC], strict=True):
        assert np.array_equal(found, expected)
    assert np.array_equal(first.token_T, other.token_T) and np.array_equal(first.mask_T, other.mask_T)
    assert not np.array_equal(first.features[SYNTHETIC][1], other.features[SYNTHETIC][1])


def test_rows_ascend_and_uncounted_tokens_have_none(suite):
    data = suite.segment(0, "base", SYNTHETIC)
    indptr_T1, index_N, bits_N = data.features[SYNTHETIC]
    length_T = np.diff(indptr_T1)
    assert (length_T[~data.mask_T] == 0).all()
    assert length_T[data.mask_T].mean() == pytest.approx(L0, rel=0.1)
    inside = np.ones(len(index_N), dtype=bool)
    inside[indptr_T1[:-1][length_T > 0]] = False
    assert (np.diff(index_N, prepend=-1)[inside] > 0).all()
    assert (decode_bf16(bits_N) > 0).all()


def test_the_figures_come_back_from_what_was_drawn(firing, runs):
    found = fit(runs.base, SYNTHETIC, NUM_FEATURES)
    assert found.l0 == pytest.approx(L0, rel=0.05)
    assert found.counted_share == pytest.approx(firing.counted_share, abs=0.02)
    assert found.rate_Q[0] == pytest.approx(firing.rate_Q[0], rel=0.15)
    assert found.log_value_mean == pytest.approx(firing.log_value_mean, abs=0.1)
    assert found.log_value_within == pytest.approx(firing.log_value_within, rel=0.1)
    assert np.median(found.prompt_tokens_Q) == pytest.approx(np.median(firing.prompt_tokens_Q), rel=0.05)
    # Longer-lived than chance: rare features fire again in a prompt in which they fired.
    rare = len(found.rate_Q) - 4
    assert found.within_Q[rare] > 2 * found.rate_Q[rare]


def test_figures_survive_a_file(firing, tmp_path):
    firing.save(tmp_path / "firing.yaml")
    text = (tmp_path / "firing.yaml").read_text()
    assert Firing.model_validate(yaml.safe_load(text)) == firing
