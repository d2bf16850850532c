"""The contract of diffs in the store: whole or not at all, read part by part, damage named."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ft_audit.engine.store import DiffManifest, Store, content_id
from ft_audit.engine.store.local_place import LocalPlace
from ft_audit.errors import StoreError

IDENTITY = {"base": "a" * 16, "tuned": "b" * 16}
GROUP = "features/demo/width_64/chat"
ARRAYS = {
    "z": np.array([0.5, np.nan, -2.0]),
    "fired_base": np.array([3, 0, 2**40]),
    "ci": np.zeros((3, 2), np.float32),
}
TABLE = pa.table({"row": [1, 2], "tokens": [["a", "b"], []], "score_x": [0.5, None]})
SUMMARY = {"name": "demo", "figures": {"x": 1.5}, "suites": [{"name": "chat", "base_run": "a" * 16}]}


def write(root: str, z: float = 0.5) -> DiffManifest:
    with Store(root).diff_writer(IDENTITY) as writer:
        writer.put_stats(GROUP, {**ARRAYS, "z": np.array([z, np.nan, -2.0])})
        writer.put_stats("fvu/demo/chat", {"base": np.array([0.25])})
        writer.put_table("rows", TABLE)
        return writer.finish(SUMMARY)


def test_a_diff_comes_back(store_root: str) -> None:
    manifest = write(store_root)
    store = Store(store_root)
    assert store.diffs() == [manifest.diff_id] == [content_id(IDENTITY)] and store.has_diff(manifest.diff_id)
    diff = store.open_diff(manifest.diff_id)
    assert diff.manifest == manifest
    assert diff.manifest.identity == IDENTITY and diff.manifest.summary == SUMMARY
    assert diff.groups() == [GROUP, "fvu/demo/chat"] and diff.tables() == ["rows"]
    back = diff.stats(GROUP)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array, equal_nan=name == "z")
    assert diff.array("fvu/demo/chat", "base").tolist() == [0.25]
    assert diff.table("rows").records() == TABLE.to_pylist()
    assert diff.damaged() == [] and diff.written > 1e9


def files(root: str) -> dict[str, bytes | None]:
    place = Store(root).place
    return {file.key: place.read(file.key) for file in place.files("diffs")}


def test_the_same_diff_has_the_same_bytes(store_root: str, tmp_path: Path) -> None:
    write(store_root)
    write(str(tmp_path))
    assert files(store_root) == files(str(tmp_path)) and len(files(store_root)) > 10


def test_nothing_is_there_before_the_end(store_root: str) -> None:
    store = Store(store_root)
    writer = store.diff_writer(IDENTITY)
    writer.put_stats(GROUP, ARRAYS)
    assert store.diffs() == [] and not store.has_diff(writer.diff_id)
    with pytest.raises(StoreError, match="another process is writing"):
        store.diff_writer(IDENTITY)
    writer.close()
    assert files(store_root) == {}


def test_a_failure_leaves_nothing(store_root: str) -> None:
    def fail() -> None:
        with Store(store_root).diff_writer(IDENTITY) as writer:
            writer.array_sink("a", np.int32).append(np.arange(5, dtype=np.int32))
            writer.put_table("rows", TABLE)
            writer.put_table("rows", TABLE)

    with pytest.raises(AssertionError, match="twice"):
        fail()
    assert files(store_root) == {}


def test_what_an_interrupted_writer_left_does_not_get_in(store_root: str) -> None:
    store = Store(store_root)
    store.place.put(f"diffs/{content_id(IDENTITY)}.tmp/tables/old.parquet", b"x")
    manifest = write(store_root)
    assert store.open_diff(manifest.diff_id).tables() == ["rows"]
    assert store.place.folders("diffs") == [manifest.diff_id]
    assert not any("old.parquet" in key for key in files(store_root))


def test_a_diff_written_again_takes_the_place_of_the_old_one(store_root: str) -> None:
    with Store(store_root).diff_writer(IDENTITY) as writer:
        writer.put_stats("old", {"z": np.zeros(1)})
        writer.finish(SUMMARY)
    manifest = write(store_root, z=7.0)
    diff = Store(store_root).open_diff(manifest.diff_id)
    assert diff.array(GROUP, "z")[0] == 7.0 and diff.damaged() == []
    assert Store(store_root).place.folders("diffs") == [manifest.diff_id]
    assert not any("/old/" in key for key in files(store_root))


def test_an_array_of_unknown_length_comes_back_in_ranges(store_root: str) -> None:
    values = np.arange(1000, dtype=np.float64) ** 2
    with Store(store_root).diff_writer(IDENTITY) as writer:
        sink = writer.array_sink("a/b~c", np.float64, chunk_elements=64)
        for start in range(0, 1000, 37):
            sink.append(values[start : start + 37])
        assert len(sink) == 1000
        with pytest.raises(AssertionError, match="not closed"):
            writer.finish(SUMMARY)
        sink.close()
        writer.array_sink("empty", np.uint16).close()
        writer.finish(SUMMARY)
    diff = Store(store_root).open_diff(content_id(IDENTITY))
    assert diff.index_paths() == ["a/b~c", "empty"] and diff.damaged() == []
    array = pickle.loads(pickle.dumps(diff)).index_array("a/b~c")
    assert len(array) == 1000 and array.dtype == np.float64
    for wanted in (
        slice(0, 1000),
        slice(63, 65),
        slice(64, 128),
        slice(990, 2000),
        slice(-3, None),
        slice(7, 7),
    ):
        assert np.array_equal(array[wanted], values[wanted]), wanted
    assert len(diff.index_array("empty")) == 0 and diff.index_array("empty")[0:5].size == 0
    with pytest.raises(StoreError, match=r"no index array 'x'; it holds a/b~c, empty"):
        diff.index_array("x")


def test_a_range_reads_no_more_chunks_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path).diff_writer(IDENTITY) as writer:
        sink = writer.array_sink("a", np.int64, chunk_elements=10)
        sink.append(np.arange(95))
        sink.close()
        writer.finish(SUMMARY)
    array = Store(tmp_path).open_diff(content_id(IDENTITY)).index_array("a")
    real, read = LocalPlace.read, []
    monkeypatch.setattr(LocalPlace, "read", lambda place, key: (read.append(key), real(place, key))[1])
    assert array[28:41].tolist() == list(range(28, 41))
    assert [key.rpartition("/")[2] for key in read] == ["c.2", "c.3", "c.4"]


def test_what_a_diff_does_not_hold_is_answered_with_what_it_holds(store_root: str) -> None:
    diff = Store(store_root).open_diff(write(store_root).diff_id)
    with pytest.raises(StoreError, match=r"no stats group 'features/x'; it holds features/demo"):
        diff.stats("features/x")
    with pytest.raises(StoreError, match=r"no array .* 'y'; it holds ci, fired_base, z"):
        diff.array(GROUP, "y")
    with pytest.raises(StoreError, match=r"no table 'prompts'; it holds rows"):
        diff.table("prompts")


def test_a_number_json_cannot_hold_is_refused_before_anything_is_published(store_root: str) -> None:
    with pytest.raises(ValueError, match="JSON compliant"), Store(store_root).diff_writer(IDENTITY) as writer:
        writer.finish({"figures": {"x": float("nan")}})
    assert Store(store_root).diffs() == []


def test_a_long_array_stops_at_the_first_file_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, put = LocalPlace.put, []

    def fail_on_the_fifth(place: LocalPlace, key: str, content: bytes) -> None:
        put.append(key)
        if len(put) == 5:
            raise StoreError("the disk is full")
        real(place, key, content)

    monkeypatch.setattr(LocalPlace, "put", fail_on_the_fifth)
    with Store(tmp_path).diff_writer(IDENTITY) as writer:
        sink = writer.array_sink("a", np.int64, chunk_elements=1)
        with pytest.raises(StoreError, match="the disk is full"):
            sink.append(np.arange(1000))
        assert len(put) < 100
    assert Store(tmp_path).diffs() == []
