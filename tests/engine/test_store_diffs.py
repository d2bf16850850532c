"""The contract of diffs in the store: whole or not at all, read part by part, damage named."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ft_audit.engine.store import DiffManifest, Store, content_id
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


def write(root: Path, z: float = 0.5) -> DiffManifest:
    with Store(root).diff_writer(IDENTITY) as writer:
        writer.put_stats(GROUP, {**ARRAYS, "z": np.array([z, np.nan, -2.0])})
        writer.put_stats("fvu/demo/chat", {"base": np.array([0.25])})
        writer.put_table("rows", TABLE)
        return writer.finish(SUMMARY)


def test_a_diff_comes_back(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    store = Store(tmp_path)
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
    assert diff.damaged() == []


def test_the_same_diff_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name)
    files = [sorted(path for path in (tmp_path / n).rglob("*") if path.is_file()) for n in ("one", "two")]
    hashes = [[hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] for paths in files]
    assert hashes[0] == hashes[1] and len(hashes[0]) > 10


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = store.diff_writer(IDENTITY)
    writer.put_stats(GROUP, ARRAYS)
    assert store.diffs() == [] and not store.has_diff(writer.diff_id)
    with pytest.raises(StoreError, match="another process is writing"):
        store.diff_writer(IDENTITY)
    writer.close()
    assert list((tmp_path / "diffs").iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Store(tmp_path).diff_writer(IDENTITY) as writer:
            writer.put_table("rows", TABLE)
            writer.put_table("rows", TABLE)

    with pytest.raises(AssertionError, match="twice"):
        fail()
    assert list((tmp_path / "diffs").iterdir()) == []


def test_what_an_interrupted_writer_left_does_not_get_in(tmp_path: Path) -> None:
    leftover = tmp_path / "diffs" / f"{content_id(IDENTITY)}.tmp"
    (leftover / "tables").mkdir(parents=True)
    (leftover / "tables" / "old.parquet").write_bytes(b"x")
    manifest = write(tmp_path)
    assert Store(tmp_path).open_diff(manifest.diff_id).tables() == ["rows"]
    assert [path.name for path in (tmp_path / "diffs").iterdir()] == [manifest.diff_id]
    assert not list(tmp_path.rglob("old.parquet"))


def test_a_diff_written_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = write(tmp_path, z=7.0)
    assert Store(tmp_path).open_diff(manifest.diff_id).array(GROUP, "z")[0] == 7.0
    assert [path.name for path in (tmp_path / "diffs").iterdir()] == [manifest.diff_id]


def test_damage_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    diff = Store(tmp_path).open_diff(write(tmp_path).diff_id)
    chunk = next(path for path in tmp_path.rglob("z/c.*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    next(tmp_path.rglob("rows.parquet")).unlink()
    with pytest.raises(
        StoreError, match=f"stats group '{GROUP}' of diff .* is damaged: array z .*precompute"
    ):
        diff.array(GROUP, "z")
    with pytest.raises(StoreError, match=r"table 'rows' of diff .* is missing.*rows.parquet"):
        diff.table("rows")
    assert diff.array(GROUP, "fired_base").tolist() == ARRAYS["fired_base"].tolist()
    assert len(diff.damaged()) == 2


def test_a_diff_with_a_damaged_manifest_is_not_there(tmp_path: Path) -> None:
    diff = write(tmp_path).diff_id
    manifest = next(tmp_path.rglob("manifest.json"))
    manifest.write_text(manifest.read_text().replace("1.5", "2.5"))
    assert not Store(tmp_path).has_diff(diff)
    with pytest.raises(StoreError, match="does not have its checksum"):
        Store(tmp_path).open_diff(diff)


def test_what_a_diff_does_not_hold_is_answered_with_what_it_holds(tmp_path: Path) -> None:
    diff = Store(tmp_path).open_diff(write(tmp_path).diff_id)
    with pytest.raises(StoreError, match=r"no stats group 'features/x'; it holds features/demo"):
        diff.stats("features/x")
    with pytest.raises(StoreError, match=r"no array .* 'y'; it holds ci, fired_base, z"):
        diff.array(GROUP, "y")
    with pytest.raises(StoreError, match=r"no table 'prompts'; it holds rows"):
        diff.table("prompts")


def test_a_number_json_cannot_hold_is_refused_before_anything_is_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"), Store(tmp_path).diff_writer(IDENTITY) as writer:
        writer.finish({"figures": {"x": float("nan")}})
    assert Store(tmp_path).diffs() == []
