"""Row by feature differences against their definition on the dense activations."""

import numpy as np
import pytest
from scipy.sparse import issparse

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.diff.row_features import row_features
from ft_audit.errors import StoreError

SAE = "demo/width_30"


def test_every_entry_is_the_rows_mean_difference(corpus, base, tuned, tuned_elsewhere):
    expected = np.nan_to_num(corpus.differences())
    for run in (tuned, tuned_elsewhere):
        got = row_features(base, run, SAE)
        assert issparse(got) and got.format == "csr" and got.dtype == np.float32
        assert got.shape == (corpus.num_prompts, 30)
        np.testing.assert_allclose(got.toarray(), expected, rtol=1e-6, atol=1e-7)
        assert got.has_sorted_indices and not (got.data == 0).any()
        assert got.indptr[6] == got.indptr[5]  # prompt 5 has no token that counts


def test_columns_add_up_to_the_moments(base, tuned):
    moments = pair_moments(base, tuned, SAE)
    got = row_features(base, tuned, SAE).astype(np.float64)
    np.testing.assert_allclose(got.sum(axis=0), moments.sum_d, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((got * got).sum(axis=0), moments.sumsq_d, rtol=1e-5, atol=1e-6)


def test_a_run_against_itself_is_empty(base):
    assert row_features(base, base, SAE).nnz == 0


def test_the_number_of_threads_changes_nothing(base, tuned_elsewhere):
    results = []
    for num_threads in (1, 4):
        with open_scheduler(num_threads=num_threads) as scheduler:
            results.append(row_features(base, tuned_elsewhere, SAE, scheduler))
    for name in ("data", "indices", "indptr"):
        assert getattr(results[0], name).tobytes() == getattr(results[1], name).tobytes()


def test_rows_that_the_runs_lack_are_empty(corpus, make_run, two_segments):
    plan = [[p for p in part if p != 2] for part in two_segments]
    base = make_run("without 2", corpus, corpus.base_TF, plan)
    tuned = make_run("without 2 tuned", corpus, corpus.tuned_TF, plan)
    expected = np.nan_to_num(corpus.differences())
    expected[2] = 0
    np.testing.assert_allclose(row_features(base, tuned, SAE).toarray(), expected, rtol=1e-6, atol=1e-7)


def test_an_unknown_dictionary_is_refused(base, tuned):
    with pytest.raises(StoreError, match="not encoded with dictionary 'other'"):
        row_features(base, tuned, "other")
