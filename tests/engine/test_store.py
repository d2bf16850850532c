"""The contract of runs, on a local folder and on S3: what was written comes back, by any process, resumed."""

import json
import pickle
import runpy
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.engine.store import RunReader, SegmentData, SegmentEntry, SegmentSink, Store, run_id
from ft_audit.errors import StoreError

CASE_FILE = Path(__file__).parent / "store_case.py"


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(CASE_FILE)))


@pytest.fixture(scope="module")
def whole(case: SimpleNamespace, store_base: str) -> str:
    root = f"{store_base}/whole"
    case.write_run(root)
    return root


def only_run(root: str) -> RunReader:
    store = Store(root)
    return store.open_run(store.runs()[0])


def assert_same_segment(back: SegmentData, given: SegmentData) -> None:
    for name in ("prompt_P", "prompt_indptr_P1", "token_T", "role_T", "mask_T"):
        assert np.array_equal(getattr(back, name), getattr(given, name)), name
        assert getattr(back, name).dtype == getattr(given, name).dtype, name
    assert set(back.features) == set(given.features)
    for sae, rows in given.features.items():
        for mine, theirs in zip(back.features[sae], rows, strict=True):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    for kind in ("dense", "tokens", "stats"):
        found, expected = getattr(back, kind), getattr(given, kind)
        assert set(found) == set(expected), kind
        for name, array in expected.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def test_segments_come_back(case: SimpleNamespace, whole: str) -> None:
    run = only_run(whole)
    assert run.manifest.complete and run.manifest.hooks == case.HOOKS
    assert run.manifest.identity == case.IDENTITY and run.manifest.run_id == run_id(case.IDENTITY)
    segments = list(run.segments(tokens=None, stats=None))
    assert len(segments) == case.NUM_SEGMENTS
    for number, segment in enumerate(segments):
        assert_same_segment(segment, case.make_segment(number))
    assert run.manifest.num_tokens == sum(segment.num_tokens for segment in segments)
    assert run.manifest.num_prompts == case.NUM_SEGMENTS * case.NUM_PROMPTS
    assert run.damaged() == []


def test_a_reader_takes_only_what_it_asks_for(whole: str) -> None:
    run = only_run(whole)
    segment = run.segment(2, saes=(), dense=("resid/3/norm_P",))
    assert list(segment.features) == [] and list(segment.dense) == ["resid/3/norm_P"]
    assert list(segment.tokens) == list(segment.stats) == []
    segment = run.segment(2, tokens=("resid/3/bits_TD",), stats=("loss",))
    assert list(segment.tokens) == ["resid/3/bits_TD"] and list(segment.stats) == ["loss"]
    assert run.token_names() == ["resid/3/bits_TD"] and run.stats_names() == ["loss", "resid/3/gram_DD"]


def test_dense_arrays_come_in_the_order_of_the_suite(case: SimpleNamespace, whole: str) -> None:
    run = only_run(whole)
    mean_PD = run.dense("resid/3/mean_PD")
    for number in range(case.NUM_SEGMENTS):
        segment = case.make_segment(number)
        assert np.array_equal(mean_PD[segment.prompt_P], segment.dense["resid/3/mean_PD"])
    assert sorted(run.prompt_order) == list(range(len(mean_PD)))
    with pytest.raises(StoreError, match=r"no array 'resid/9/mean_PD'.*resid/3/mean_PD"):
        run.dense("resid/9/mean_PD")


def test_the_same_input_gives_the_same_bytes_on_either_kind(
    case: SimpleNamespace, whole: str, tmp_path: Path
) -> None:
    case.write_run(str(tmp_path))
    assert case.contents(str(tmp_path)) == case.contents(whole)


def test_ids_follow_content_not_order() -> None:
    assert run_id({"a": 1, "b": [1.5, None]}) == run_id({"b": [1.5, None], "a": 1})
    assert len({run_id({"a": 1}), run_id({"a": 2}), run_id({"a": "1"}), run_id({"a": True})}) == 4
    assert len(run_id({})) == 16


@pytest.mark.parametrize("die_at", [1, 40, 75])
def test_killed_between_files_then_resumed_gives_the_same_bytes(
    case: SimpleNamespace, whole: str, store_root: str, die_at: int
) -> None:
    script = [sys.executable, str(CASE_FILE), store_root, "put", str(die_at)]
    died = subprocess.run(script, check=False, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    # Between the death and the resumption no reader takes the run for whole.
    with pytest.raises(StoreError, match=r"precompute"):
        only_run(store_root)
    committed = Store(store_root).open_run(run_id(case.IDENTITY), allow_incomplete=True).num_segments
    assert committed == (die_at - 1) // (len(case.contents(whole)) // case.NUM_SEGMENTS)
    # No wait: the holder of the lock is known to be dead.
    case.write_run(store_root)
    assert case.contents(store_root, "runs") == case.contents(whole, "runs")


def test_resuming_writes_only_what_is_missing(case: SimpleNamespace, store_root: str) -> None:
    store = Store(store_root)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(2, case.make_segment(2))
        with pytest.raises(AssertionError, match="missing"):
            writer.finish()
    assert not store.has_run(writer.run_id)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        assert writer.committed == {2}
    case.write_run(store_root)
    assert store.has_run(writer.run_id)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        assert writer.complete


def test_two_writers_of_one_run_are_refused(case: SimpleNamespace, store_root: str) -> None:
    store = Store(store_root)
    first = store.run_writer(case.IDENTITY, case.HOOKS)
    with pytest.raises(StoreError, match=r"another process is writing .*process \d+\): wait"):
        store.run_writer(case.IDENTITY, case.HOOKS)
    first.close()
    store.run_writer(case.IDENTITY, case.HOOKS).close()


def write_from_another_process(sink: SegmentSink, number: int) -> SegmentEntry:
    return sink.write(number, runpy.run_path(str(CASE_FILE))["make_segment"](number))


def test_other_processes_write_segments_and_the_writer_commits_them(
    case: SimpleNamespace, whole: str, store_root: str
) -> None:
    with Store(store_root).run_writer(case.IDENTITY, case.HOOKS) as writer:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            # Segment 1 twice and perhaps at once, as when a worker is taken for dead.
            work = [pool.submit(write_from_another_process, writer.sink(), n) for n in (3, 1, 1, 0, 2)]
            assert writer.committed == set()
            for done in work:
                writer.commit(done.result())
        writer.finish()
    assert case.contents(store_root, "runs") == case.contents(whole, "runs")


def test_a_segment_that_went_to_another_store_is_not_committed(
    case: SimpleNamespace, store_root: str, tmp_path: Path
) -> None:
    with Store(store_root).run_writer(case.IDENTITY, case.HOOKS) as writer:
        sink = SegmentSink(str(tmp_path / "elsewhere"), writer.run_id, writer.sink().saes)
        entry = sink.write(0, case.make_segment(0))
        with pytest.raises(StoreError, match="a store that all workers share"):
            writer.commit(entry)
        assert writer.committed == set()


def test_dropped_segments_are_written_again(case: SimpleNamespace, whole: str, store_root: str) -> None:
    root = case.copy_store(whole, store_root)
    with Store(root).run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.drop([1, 3])
        assert writer.committed == {0, 2} and not writer.complete
    assert not Store(root).has_run(writer.run_id)
    assert not any("00001.zarr" in key for key in case.contents(root))
    case.write_run(root)
    assert case.contents(root, "runs") == case.contents(whole, "runs")


def test_a_run_given_up_says_for_what(case: SimpleNamespace, store_root: str) -> None:
    store = Store(store_root)
    assert store.successor("nope") is None
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        assert store.successor(writer.run_id) is None
        writer.supersede({"batch_tokens": 512})
    assert store.successor(writer.run_id) == {"batch_tokens": 512} and not store.has_run(writer.run_id)
    assert list(case.contents(store_root, f"runs/{writer.run_id}")) == [f"runs/{writer.run_id}/manifest.json"]
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        with pytest.raises(AssertionError, match="given up"):
            writer.finish()


def test_a_writer_that_fails_in_a_segment_leaves_the_others(case: SimpleNamespace, store_root: str) -> None:
    good = case.make_segment(1)
    bad = SegmentData(good.prompt_P, good.prompt_indptr_P1, good.token_T, good.role_T[:-1], good.mask_T)
    with Store(store_root).run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        with pytest.raises(AssertionError, match="rows of set"):
            writer.write_segment(1, bad)
        assert writer.committed == {0}


@pytest.mark.parametrize("array", ["prompt_indptr_P1", "role_T", "mask_T"])
def test_a_segment_whose_shapes_disagree_is_refused(case: SimpleNamespace, array: str) -> None:
    good = case.make_segment(1)
    values = {name: getattr(good, name) for name in SegmentData.__slots__}
    with pytest.raises(AssertionError, match=array):
        SegmentData(**{**values, array: values[array][:-1]}).check()


def test_other_hooks_under_the_same_identity_are_refused(
    case: SimpleNamespace, whole: str, store_root: str
) -> None:
    with pytest.raises(StoreError, match="another run"):
        Store(case.copy_store(whole, store_root)).run_writer(case.IDENTITY, [])


def test_a_manifest_of_another_schema_is_refused(case: SimpleNamespace, whole: str, store_root: str) -> None:
    place = Store(case.copy_store(whole, store_root)).place
    key = f"runs/{run_id(case.IDENTITY)}/manifest.json"
    older = {**json.loads(place.read(key) or b""), "schema_version": 1}
    place.replace(key, json.dumps(older).encode())
    for open_it in (only_run, lambda root: Store(root).run_writer(case.IDENTITY, case.HOOKS)):
        with pytest.raises(StoreError, match="schema version 1, this ft-audit reads version 2") as caught:
            open_it(store_root)
        assert key in str(caught.value) and "delete the folder" in str(caught.value)


def test_an_unknown_run_is_answered_with_those_there(whole: str, store_root: str) -> None:
    with pytest.raises(StoreError, match=f"no run 'nope' .it has: {Store(whole).runs()[0]}"):
        Store(whole).open_run("nope")
    with pytest.raises(StoreError, match="it has: none"):
        Store(store_root).open_diff("nope")


def test_readers_and_stores_travel_to_other_processes(whole: str) -> None:
    assert pickle.loads(pickle.dumps(only_run(whole))).segment(0).num_prompts > 0
    assert pickle.loads(pickle.dumps(Store(whole))).runs() == Store(whole).runs()
