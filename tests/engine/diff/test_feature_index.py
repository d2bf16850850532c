"""The feature-major copy against the dense activations, and its contexts against those of the segments."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import numpy as np
import pytest

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff import feature_index
from ft_audit.engine.diff.contexts import top_contexts
from ft_audit.engine.diff.feature_index import (
    bucket_edges,
    entry_chunk,
    put_feature_index,
    put_feature_statistics,
)
from ft_audit.engine.store import DiffReader, FeatureIndex, RunReader, Store
from ft_audit.engine.store.feature_index_reader import suite_path
from ft_audit.errors import StoreError

SAE, SUITE = "demo/width_30", "chat/a b"


class Runs(NamedTuple):
    name: str
    base: RunReader
    tuned: RunReader


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("index") / "store")


@pytest.fixture(scope="module")
def index_of(store) -> Callable[..., DiffReader]:
    """Writes the copy of one pair of runs, each time as a diff of its own."""
    numbers = count()

    def write(base: RunReader, tuned: RunReader, num_threads: int = 2) -> DiffReader:
        with (
            open_scheduler(num_threads=num_threads) as scheduler,
            store.diff_writer({"number": next(numbers)}) as writer,
        ):
            put_feature_index(writer, [Runs(SUITE, base, tuned)], [SAE], scheduler)
            return store.open_diff(writer.finish({}).diff_id)

    return write


def whole(diff: DiffReader, path: str) -> np.ndarray:
    array = diff.index_array(path)
    return array[0 : len(array)]


@pytest.fixture(scope="module")
def pair(base, tuned_elsewhere) -> Runs:
    return Runs(SUITE, base, tuned_elsewhere)


@pytest.fixture(scope="module")
def diff(index_of, pair) -> DiffReader:
    return index_of(pair.base, pair.tuned)


@pytest.fixture(scope="module")
def index(diff) -> FeatureIndex:
    return FeatureIndex(diff)


@pytest.fixture(params=["base", "tuned"])
def side(request) -> str:
    return request.param


def test_every_counted_token_of_a_feature_is_found(index, corpus, side):
    x_TF = corpus.base_TF if side == "base" else corpus.tuned_TF
    for feature in range(30):
        expected_N = np.flatnonzero((x_TF[:, feature] > 0) & corpus.mask_T)
        found = index.tokens_of(SAE, SUITE, side, feature)
        assert np.array_equal(found.token_N, expected_N)
        assert np.array_equal(found.value_N, x_TF[expected_N, feature])
        prompt_N = [next(p for p in range(24) if corpus.indptr_P1[p + 1] > t) for t in expected_N]
        assert found.prompt_N.tolist() == prompt_N
        assert np.array_equal(found.position_N, expected_N - corpus.indptr_P1[prompt_N])


@pytest.mark.parametrize("num_peaks", [1, 4, 32])
@pytest.mark.parametrize("read_whole", [0, 1 << 16])
def test_contexts_are_those_that_the_segments_give(index_of, pair, side, num_peaks, read_whole, monkeypatch):
    # Few peaks kept: more contexts are then asked for than peaks. Nothing read whole: each window alone.
    monkeypatch.setattr(feature_index, "NUM_PEAKS", num_peaks)
    monkeypatch.setattr("ft_audit.engine.store.feature_index_reader.READ_WHOLE", read_whole)
    index, run = FeatureIndex(index_of(pair.base, pair.tuned)), getattr(pair, side)
    for num_contexts, window in ((1, 0), (4, 3), (8, 12), (100, 2)):
        expected = top_contexts(run, SAE, range(30), num_contexts, window)
        assert max(map(len, expected.values())) >= min(num_contexts, 20)
        for feature in range(30):
            assert index.top_contexts(SAE, SUITE, side, feature, num_contexts, window) == expected[feature]


def test_ties_go_to_the_earlier_prompt(index_of, corpus, make_run, two_segments):
    flat_TF = np.where(corpus.base_TF > 0, 1.0, 0).astype(np.float32)
    run = make_run("flat for the index", corpus, flat_TF, two_segments)
    index = FeatureIndex(index_of(run, run))
    for feature, expected in top_contexts(run, SAE, range(30), 6, 2).items():
        assert index.top_contexts(SAE, SUITE, "base", feature, 6, 2) == expected


def test_the_copy_does_not_depend_on_segments_threads_or_buckets(
    index_of, diff, base, tuned, tuned_elsewhere, monkeypatch
):
    # Both sides from other segments than before, one feature or two a bucket, and one thread.
    monkeypatch.setattr(feature_index, "BUCKET_ENTRIES", 20)
    swapped = index_of(base, tuned, num_threads=1)
    assert swapped.index_paths() == diff.index_paths()
    for path in diff.index_paths():
        assert whole(swapped, path).tobytes() == whole(diff, path).tobytes(), path


def test_the_suites_tokens_lie_in_its_order(diff, corpus):
    expected = {
        "prompt_indptr_P1": corpus.indptr_P1,
        "token_id_T": corpus.token_T,
        "role_T": np.arange(len(corpus.token_T)) % 3,
        "mask_base_T": corpus.mask_T,
        "mask_tuned_T": corpus.mask_T,
    }
    for name, array in expected.items():
        assert np.array_equal(whole(diff, suite_path(SUITE, name)), array), name
    assert diff.index_array(suite_path(SUITE, "token_id_T")).dtype == np.int32


def test_prompts_that_no_run_holds_leave_no_gap(index_of, corpus, make_run):
    without = [[p for p in range(24) if p not in (0, 3, 4)]]
    run = make_run("with gaps", corpus, corpus.base_TF, without)
    index = FeatureIndex(index_of(run, run))
    assert not set(index.tokens_of(SAE, SUITE, "base", 29).prompt_N) & {0, 3, 4}
    assert index.top_contexts(SAE, SUITE, "base", 29) == top_contexts(run, SAE, [29])[29]


def test_suites_and_dictionaries_with_slashes_stay_apart():
    names = {suite_path(suite, "token_id_T") for suite in ("a/b", "a~2Fb", "a%2Fb", "a b", "a")}
    assert len(names) == 5
    assert {name.count("/") for name in names} == {2}


def test_runs_that_differ_are_refused(index_of, corpus, make_run, base, two_segments):
    other = make_run("two segments fewer prompts", corpus, corpus.base_TF, [two_segments[0]])
    with pytest.raises(StoreError, match="do not hold the same prompts"):
        index_of(base, other)
    ids_T = corpus.token_T.copy()
    ids_T[corpus.indptr_P1[7]] += 1
    changed = replace(corpus, token_T=ids_T)
    other = make_run("another token", changed, corpus.base_TF, two_segments)
    with pytest.raises(StoreError, match="prompt 7 of suite 'chat/a b' has other tokens"):
        index_of(base, other)


def test_each_run_counts_by_its_own_mask(index_of, corpus, make_run, base, two_segments):
    mask_T = corpus.mask_T.copy()
    mask_T[corpus.indptr_P1[8] : corpus.indptr_P1[11]] = False
    masked = replace(corpus, mask_T=mask_T)
    run = make_run("counts less", masked, corpus.tuned_TF, two_segments)
    index = FeatureIndex(index_of(base, run))
    assert {8, 9, 10} <= set(index.tokens_of(SAE, SUITE, "base", 29).prompt_N)
    assert not {8, 9, 10} & set(index.tokens_of(SAE, SUITE, "tuned", 29).prompt_N)
    assert index.top_contexts(SAE, SUITE, "tuned", 29) == top_contexts(run, SAE, [29])[29]


def test_what_is_not_there_is_named(index):
    with pytest.raises(StoreError, match="no feature 30: name one from 0 to 29"):
        index.tokens_of(SAE, SUITE, "base", 30)
    with pytest.raises(StoreError, match="no feature -1"):
        index.top_contexts(SAE, SUITE, "base", -1)
    with pytest.raises(StoreError, match="no features of 'other' on suite"):
        index.tokens_of("other", SUITE, "base", 0)
    with pytest.raises(StoreError, match="no statistics of 'features/x'"):
        index.statistics("features/x", 0)


def test_a_features_statistics_are_its_entry_in_every_array(store):
    rng = np.random.default_rng(0)
    arrays = {"z": rng.normal(size=50), "fired_base": np.arange(50) + (1 << 40), "q": np.full(50, np.nan)}
    with store.diff_writer({"statistics": 1}) as writer:
        writer.put_stats("features/a/b", arrays)
        put_feature_statistics(writer, "features/a/b", arrays)
        index = FeatureIndex(store.open_diff(writer.finish({}).diff_id))
    for feature in (0, 7, 49):
        found = index.statistics("features/a/b", feature)
        assert list(found) == ["fired_base", "q", "z"]
        assert found["fired_base"] == arrays["fired_base"][feature] and np.isnan(found["q"])
        assert found["z"] == arrays["z"][feature]
    with pytest.raises(StoreError, match="no feature 50"):
        index.statistics("features/a/b", 50)


@pytest.mark.parametrize(
    ("counts", "entries", "features", "edges"),
    [
        ([3, 3, 3], 6, 9, [0, 2, 3]),
        ([9, 1, 1, 9], 4, 9, [0, 1, 3, 4]),
        ([0, 0, 0, 0, 0], 4, 2, [0, 2, 4, 5]),
        ([0, 0, 5, 0], 5, 9, [0, 4]),
    ],
)
def test_buckets_hold_few_entries_and_few_features(counts, entries, features, edges):
    indptr_F1 = np.concatenate([[0], np.cumsum(counts)])
    assert bucket_edges(indptr_F1, entries, features) == edges


@pytest.mark.parametrize(
    ("num_entries", "elements"), [(0, 1 << 16), (10**6, 1 << 16), (320 * 10**6, 1 << 18), (10**10, 1 << 20)]
)
def test_longer_arrays_have_larger_chunks(num_entries, elements):
    assert entry_chunk(num_entries) == elements
