"""The tests per feature against scipy on the per-prompt differences, and their calibration under the null.

Legend: P prompts, F features.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ft_audit.engine.diff.feature_tests import feature_tests
from ft_audit.kernels.diff_stats import PairMoments, PairRows, SideRows, empty, pair_moments


def from_differences(d_PF: np.ndarray, prompts_either: np.ndarray | None = None) -> PairMoments:
    """Moments that hold these per-prompt differences and nothing else."""
    num_prompts, num_features = d_PF.shape
    either = np.full(num_features, num_prompts) if prompts_either is None else prompts_either
    given_arrays = {
        "sum_d": d_PF.sum(0), "sumsq_d": (d_PF**2).sum(0), "sum_r": d_PF.sum(0), "sumsq_r": (d_PF**2).sum(0),
        "prompts_either": either.astype(np.int64),
    }  # fmt: skip
    return PairMoments(num_prompts, num_prompts, **(empty(num_features).arrays() | given_arrays))


def to_rows(x_TF: np.ndarray) -> SideRows:
    indptr_T1 = np.concatenate([[0], np.cumsum((x_TF > 0).sum(1))]).astype(np.int64)
    return SideRows(indptr_T1, np.nonzero(x_TF > 0)[1].astype(np.int32), x_TF[x_TF > 0].astype(np.float32))


def test_z_and_p_are_those_of_the_paired_t_test(corpus):
    counted = [p for p in range(corpus.num_prompts) if corpus.mask_T[corpus.prompt(p)].any()]
    rows = PairRows(to_rows(corpus.base_TF), to_rows(corpus.tuned_TF), corpus.indptr_P1, corpus.mask_T, 30)
    tests = feature_tests(pair_moments(rows))
    # Per-prompt means of each side separately: the paired test must need nothing but their pairs.
    sides = [
        np.array([x_TF[corpus.prompt(p)][corpus.mask_T[corpus.prompt(p)]].mean(0) for p in counted])
        for x_TF in (corpus.base_TF.astype(np.float64), corpus.tuned_TF.astype(np.float64))
    ]
    moved_F = np.abs(sides[1] - sides[0]).sum(0) > 0
    assert 20 < moved_F.sum() < 30
    expected = stats.ttest_rel(sides[1][:, moved_F], sides[0][:, moved_F])
    np.testing.assert_allclose(tests["z"][moved_F], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(tests["p"][moved_F], expected.pvalue, rtol=1e-8)
    np.testing.assert_allclose(tests["mean_diff"], (sides[1] - sides[0]).mean(0), rtol=1e-10, atol=1e-15)
    assert tests["z"][~moved_F].tolist() == [0.0] * int((~moved_F).sum())
    assert tests["p"][~moved_F].tolist() == [1.0] * int((~moved_F).sum())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_features=st.integers(1, 60), min_prompts=st.integers(1, 25))
def test_q_is_benjamini_hochberg_over_the_family_and_nan_outside(seed, num_features, min_prompts):
    rng = np.random.default_rng(seed)
    d_PF = rng.normal(size=(20, num_features)) + rng.normal(size=num_features)
    d_PF[:, rng.random(num_features) < 0.2] = 0  # ties at p = 1
    fired = rng.integers(0, 26, num_features)
    tests = feature_tests(from_differences(d_PF, fired), min_prompts=min_prompts)
    family = fired >= min_prompts
    assert np.array_equal(np.isnan(tests["q"]), ~family)
    if family.any():
        expected = stats.false_discovery_control(tests["p"][family], method="bh")
        np.testing.assert_allclose(tests["q"][family], expected, rtol=1e-12)


def test_effect_is_mean_over_sd_and_its_interval_covers():
    rng = np.random.default_rng(0)
    true_effect, num_prompts = 0.5, 60
    tests = feature_tests(from_differences(rng.normal(true_effect, 1.0, (num_prompts, 4000))))
    inside = (tests["effect_low"] <= true_effect) & (true_effect <= tests["effect_high"])
    assert inside.mean() == pytest.approx(0.95, abs=0.015)
    np.testing.assert_allclose(tests["effect"] * np.sqrt(num_prompts), tests["z"], rtol=1e-12)


def test_the_interval_of_the_rate_difference_is_the_t_interval():
    r_PF = np.random.default_rng(1).normal(0.2, 0.3, (25, 5))
    tests = feature_tests(from_differences(r_PF))
    expected = stats.ttest_1samp(r_PF, 0).confidence_interval(0.95)
    np.testing.assert_allclose(tests["delta_rate"], r_PF.mean(0), rtol=1e-12)
    np.testing.assert_allclose(tests["delta_rate_low"], expected.low, rtol=1e-9)
    np.testing.assert_allclose(tests["delta_rate_high"], expected.high, rtol=1e-9)


def test_ratios_of_counts():
    arrays = empty(3).arrays() | {
        "fired_base": np.array([0, 8, 4]), "fired_tuned": np.array([0, 2, 0]),
        "fired_both": np.array([0, 2, 0]), "sum_base": np.array([0.0, 16.0, 4.0]),
        "sum_tuned": np.array([0.0, 10.0, 0.0]),
    }  # fmt: skip
    tests = feature_tests(PairMoments(100, 10, **arrays))
    np.testing.assert_allclose(tests["log2_ratio"], [0.0, np.log2(2.5 / 8.5), np.log2(0.5 / 4.5)])
    np.testing.assert_array_equal(tests["both_given_base"], [np.nan, 0.25, 0.0])
    np.testing.assert_array_equal(tests["delta_when_fired"], [np.nan, 5.0 - 2.0, np.nan])


def test_the_aa_percentile_counts_the_controls_differences_below_over_the_family():
    control = from_differences(np.tile([0.1, -0.2, 0.3, 0.4, 9.0], (12, 1)))
    moments = from_differences(np.tile([0.0, 0.3, -0.35, -5.0, 99.0], (20, 1)), np.array([20, 20, 20, 20, 3]))
    tests = feature_tests(moments, control)
    # The control's 9.0 belongs to the feature outside the family and raises nobody's bar.
    np.testing.assert_allclose(tests["aa_percentile"], [0, 50, 75, 100, np.nan], rtol=1e-12)
    assert np.isnan(feature_tests(moments)["aa_percentile"]).all()


def test_a_constant_shift_is_extreme_but_finite():
    tests = feature_tests(from_differences(np.full((30, 1), 0.7)))
    assert np.isfinite(tests["z"]).all() and tests["z"][0] > 1e6 and tests["p"][0] < 1e-100
    assert np.isfinite(tests["effect_high"]).all()


@pytest.mark.parametrize("num_prompts", [0, 1])
def test_below_two_prompts_nothing_is_claimed(num_prompts):
    tests = feature_tests(from_differences(np.ones((num_prompts, 2))), min_prompts=0)
    for name in ("z", "p", "q", "effect", "effect_low", "delta_rate_high"):
        assert np.isnan(tests[name]).all(), name


def noisy_twin(seed: int, num_features: int, once_a_prompt: bool = False) -> PairRows:
    """A base against itself over 150 prompts: jittered activations, and flips where they cross the threshold.

    Both sides are the same activations plus independent noise of one law, drawn for every token or once for
    all tokens of a prompt, so neither side is ahead.
    """
    rng = np.random.default_rng(seed)
    lengths_P = rng.integers(4, 30, 150)
    indptr_P1 = np.concatenate([[0], np.cumsum(lengths_P)]).astype(np.int64)
    rate_F = np.geomspace(0.005, 0.8, num_features)
    shape = (int(indptr_P1[-1]), num_features)
    pre_TF = np.where(rng.random(shape) < rate_F, rng.exponential(1.0, shape), -1.0)
    sides = []
    for _ in range(2):
        if once_a_prompt:
            noise_TF = np.repeat(0.05 * rng.standard_normal((150, num_features)), lengths_P, axis=0)
        else:
            noise_TF = 0.05 * rng.standard_normal(shape)
        sides.append(to_rows(np.where(pre_TF + noise_TF > 0.1, pre_TF + noise_TF, 0).astype(np.float32)))
    return PairRows(*sides, indptr_P1, np.ones(shape[0], dtype=bool), num_features)


@pytest.mark.parametrize("once_a_prompt", [False, True], ids=["noise per token", "noise per prompt"])
def test_p_values_are_uniform_when_the_base_is_compared_with_itself(once_a_prompt):
    """Over eight bases, some 8,000 p-values: Kolmogorov-Smirnov distance to uniform below 0.03.

    The shares below 0.001, 0.05, 0.2 and 0.5 miss these levels by less than the tolerances listed, and at
    most one base in eight has any feature at q < 0.05 (one in twenty may).
    """
    p_values, discoveries = [], 0
    for seed in range(8):
        tests = feature_tests(pair_moments(noisy_twin(seed, 1000, once_a_prompt)))
        p_values.append(tests["p"][~np.isnan(tests["q"])])
        discoveries += bool(np.nanmin(tests["q"]) < 0.05)
    p = np.concatenate(p_values)
    assert len(p) > 7500
    assert stats.kstest(p, "uniform").statistic < 0.03
    for level, tolerance in ((0.001, 0.001), (0.05, 0.01), (0.2, 0.02), (0.5, 0.03)):
        assert (p < level).mean() == pytest.approx(level, abs=tolerance)
    assert discoveries <= 1


def test_a_shift_in_a_few_features_is_found_among_the_noise():
    rows = noisy_twin(1, 400)
    shifted_N = np.isin(rows.tuned.index_N, [200, 300, 390])
    value_N = np.where(shifted_N, rows.tuned.value_N + np.float32(0.05), rows.tuned.value_N)
    changed = replace(rows, tuned=rows.tuned._replace(value_N=value_N))
    tests = feature_tests(pair_moments(changed), control=pair_moments(rows))
    found = np.flatnonzero(tests["q"] < 0.05)
    assert set(found) >= {200, 300, 390} and len(found) <= 6
    assert tests["aa_percentile"][390] == 100
