"""Residual statistics against the formulas written out prompt by prompt."""

import numpy as np
import pytest

import ft_audit.engine.diff.residual as residual
from ft_audit.engine.diff.residual import residual_diff
from ft_audit.errors import StoreError


def cosine(a_D: np.ndarray, b_D: np.ndarray) -> float:
    return float(a_D @ b_D / (np.linalg.norm(a_D) * np.linalg.norm(b_D)))


@pytest.mark.parametrize("block_rows", [1, 7, 4096])
def test_every_statistic_follows_its_formula(block_rows, monkeypatch, resid, base, tuned, tuned_elsewhere):
    monkeypatch.setattr(residual, "BLOCK_ROWS", block_rows)
    ours = {name: array.astype(np.float64) for name, array in resid["base"].items()}
    theirs = {name: array.astype(np.float64) for name, array in resid["tuned"].items()}
    num_prompts = len(ours["resid_post/3/norm_P"])
    # Stored in another order, the arrays still come back in the order of the suite.
    for run in (tuned, tuned_elsewhere):
        got = residual_diff(base, run, "resid_post/3")
        np.testing.assert_array_equal(got.norm_base_P, ours["resid_post/3/norm_P"])
        np.testing.assert_array_equal(got.norm_tuned_P, theirs["resid_post/3/norm_P"])
        np.testing.assert_allclose(
            got.norm_ratio_P, theirs["resid_post/3/norm_P"] / ours["resid_post/3/norm_P"]
        )
        for which, prefix in (("mean", ""), ("last", "last_")):
            b_PD, t_PD = ours[f"resid_post/3/{which}_PD"], theirs[f"resid_post/3/{which}_PD"]
            shift_D = np.nanmean(t_PD - b_PD, axis=0)
            for p in range(num_prompts):
                diff_D = t_PD[p] - b_PD[p]
                expected = {
                    "diff_norm_P": np.linalg.norm(diff_D),
                    "cosine_P": cosine(b_PD[p], t_PD[p]),
                    "centred_norm_P": np.linalg.norm(diff_D - shift_D),
                }
                for name, value in expected.items():
                    np.testing.assert_allclose(getattr(got, prefix + name)[p], value, rtol=1e-9, err_msg=name)
        shift_D = np.nanmean(theirs["resid_post/3/mean_PD"] - ours["resid_post/3/mean_PD"], axis=0)
        np.testing.assert_allclose(got.mean_shift_D, shift_D, rtol=1e-12)
        assert np.isnan(got.diff_norm_P[5]) and np.isnan(got.diff_norm_P).sum() == 1
        # The tuned side is the base plus one shift and a tenth of noise: nearly all of it is shared.
        assert 0.95 < got.shared_share < 1
        assert all(array.ndim == 1 for array in got.arrays().values())


def test_a_run_against_itself_has_moved_nowhere(base):
    got = residual_diff(base, base, "resid_post/3")
    counted = np.arange(len(got.diff_norm_P)) != 5
    assert (got.diff_norm_P[counted] == 0).all() and (got.last_centred_norm_P == 0).all()
    np.testing.assert_allclose(got.cosine_P[counted], 1, rtol=1e-12)
    np.testing.assert_array_equal(got.norm_ratio_P, 1)
    assert got.shared_share == 0


def test_arrays_that_do_not_match_are_refused(corpus, make_run, two_segments, resid, base):
    wide = {name: np.repeat(a, 2, axis=1) if a.ndim == 2 else a for name, a in resid["tuned"].items()}
    run = make_run("wide", corpus, corpus.tuned_TF, two_segments, wide)
    with pytest.raises(StoreError, match="the two models must have the same width"):
        residual_diff(base, run, "resid_post/3")
    shifted = [[p for p in part if p != 2] for part in two_segments]
    run = make_run("fewer rows", corpus, corpus.tuned_TF, shifted, resid["tuned"])
    with pytest.raises(StoreError, match="hold different prompts"):
        residual_diff(base, run, "resid_post/3")
    with pytest.raises(StoreError, match="resid_post/9/norm_P"):
        residual_diff(base, base, "resid_post/9")
