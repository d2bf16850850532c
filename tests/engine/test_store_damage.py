"""Damage on a local folder and on S3: found wherever it is, named by segment and array, and mended alone."""

import json
import runpy
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.engine.store import Store, verify_store
from ft_audit.engine.store.inventory import StoredItem
from ft_audit.errors import StoreError


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "store_case.py")))


@pytest.fixture(scope="module")
def whole(case: SimpleNamespace, store_base: str) -> str:
    root = f"{store_base}/whole"
    case.write_diff(root, {"base": case.write_run(root).run_id})
    return root


@pytest.fixture
def copy(case: SimpleNamespace, whole: str, store_root: str) -> str:
    return str(case.copy_store(whole, store_root))


def problems(root: str) -> list[tuple[StoredItem, str]]:
    return [(item, line) for item, found in verify_store(Store(root)) for line in found]


def keys(root: str) -> list[str]:
    return [file.key for file in Store(root).place.files("")]


def read_all(root: str) -> None:
    """Read everything that a reader can ask for."""
    store = Store(root)
    for run in store.runs():
        list(store.open_run(run).segments(tokens=None, stats=None))
    for name in store.diffs():
        diff = store.open_diff(name)
        for group in diff.groups():
            diff.stats(group)
        for table in diff.tables():
            diff.table(table)
        for path in diff.index_paths():
            array = diff.index_array(path)
            array[0 : len(array)]


# What a reader of values has no need to open: the descriptions of groups, which only verify reads.
def only_describes(key: str, keys: Collection[str]) -> bool:
    folder, _, name = key.rpartition("/")
    array = any(other.startswith(f"{folder}/c") and other != f"{folder}/checksums.json" for other in keys)
    return name == "zarr.json" and not array and not folder.endswith(("0.zarr", "1.zarr", "2.zarr", "3.zarr"))


def test_a_flipped_bit_in_any_file_is_found_and_named(case: SimpleNamespace, whole: str) -> None:
    found = case.contents(whole)
    assert len(found) > 100
    # All of them on the disk; on S3, where each look costs hundreds of requests, some of every kind.
    for position, key in enumerate(sorted(found)[:: 11 if "://" in whole else 1]):
        # A bit of the start, the end or the middle of the file, in turn.
        size = len(found[key])
        bit = (0, size * 8 - 1, size * 4)[position % 3]
        case.flip(whole, key, bit)
        try:
            ((item, line),) = problems(whole)
            assert key in line or item.folder in key, line
            room, name, *inner = key.split("/")
            assert (item.kind, item.id) == (room.rstrip("s"), name) and "damaged" in line
            if inner[0] == "segments":
                assert f"segment {inner[1].removesuffix('.zarr')} of run {name}" in line
            array = "/".join(inner[2:-1])
            if array and inner[0] == "segments":
                assert f"array {array} " in line
            if not only_describes(key, found.keys()):
                with pytest.raises(StoreError, match="damaged"):
                    read_all(whole)
        finally:
            case.flip(whole, key, bit)
    assert problems(whole) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda place, key: place.delete(key),
        lambda place, key: place.replace(key, b""),
        lambda place, key: place.replace(key, (place.read(key) or b"") + b"x"),
    ],
    ids=["gone", "empty", "longer"],
)
def test_only_what_is_read_of_a_damaged_segment_fails(
    case: SimpleNamespace, copy: str, damage: Callable[[Any, str], None]
) -> None:
    store = Store(copy)
    key = next(key for key in keys(copy) if "00002.zarr" in key and "value_N/c" in key)
    damage(store.place, key)
    run = store.open_run(store.runs()[0])
    assert run.segment(1).num_tokens > 0 and run.segment(2, saes=()).num_tokens > 0
    for read in (lambda: run.segment(2), lambda: list(run.segments())):
        with pytest.raises(StoreError, match=r"segment 00002 of run \w{16} is damaged.*precompute"):
            read()
    (found,) = run.damaged()
    assert (found.part, found.number) == ("segment", 2)
    assert "array features/demo/width_64/value_N" in found.message


def test_an_extra_file_and_a_missing_segment_are_damage(copy: str) -> None:
    store = Store(copy)
    segments = f"runs/{store.runs()[0]}/segments"
    store.place.replace(f"{segments}/00000.zarr/ids/id_T/c.1", b"x")
    store.place.delete(f"{segments}/00001.zarr")
    extra, missing = store.open_run(store.runs()[0]).damaged()
    assert extra.number == 0 and "does not belong there" in extra.message
    assert missing.number == 1 and "missing" in missing.message


def test_only_the_damaged_segment_is_made_again(case: SimpleNamespace, whole: str, copy: str) -> None:
    store = Store(copy)
    key = next(key for key in keys(copy) if "00002.zarr" in key and "role_T/c" in key)
    case.flip(copy, key)
    run = store.open_run(store.runs()[0])
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.drop([damage.number for damage in run.damaged()])
        assert writer.committed == {0, 1, 3}
        writer.write_segment(2, case.make_segment(2))
        writer.finish()
    assert case.contents(copy, "runs") == case.contents(whole, "runs")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {k: v for k, v in m.items() if k != "schema_version"},
        lambda m: {k: v for k, v in m.items() if k != "checksum"},
        lambda m: {**m, "num_tokens": m["num_tokens"] + 1},
        lambda m: {**m, "author": "me"},
        lambda m: [],
        lambda m: None,
    ],
)
def test_a_damaged_manifest_is_named_and_made_again_from_whole_segments(
    case: SimpleNamespace, whole: str, copy: str, change: Callable[[Any], Any]
) -> None:
    store = Store(copy)
    key = f"runs/{store.runs()[0]}/manifest.json"
    changed = change(json.loads(store.place.read(key) or b""))
    store.place.replace(key, json.dumps(changed).encode() if changed is not None else b'{"a')
    case.flip(copy, next(key for key in keys(copy) if "00002.zarr" in key and "mask_T/c" in key))
    with pytest.raises(StoreError, match=rf"{key} is damaged .*precompute"):
        store.open_run(store.runs()[0])
    assert not store.has_run(store.runs()[0])
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        assert writer.committed == {0, 1, 3} and not writer.complete
    case.write_run(copy)
    assert case.contents(copy, "runs") == case.contents(whole, "runs")


def test_a_diff_with_a_damaged_manifest_is_not_there(copy: str) -> None:
    store = Store(copy)
    (diff,) = store.diffs()
    key = f"diffs/{diff}/manifest.json"
    store.place.replace(key, (store.place.read(key) or b"").replace(b"1.5", b"2.5"))
    assert not store.has_diff(diff)
    with pytest.raises(StoreError, match="does not have its checksum"):
        store.open_diff(diff)


def test_a_damaged_table_or_array_leaves_the_rest_of_a_diff(case: SimpleNamespace, copy: str) -> None:
    store = Store(copy)
    for key in keys(copy):
        if key.endswith(("z/c.0", "token_N/c.1")):
            case.flip(copy, key)
        elif key.endswith("rows.parquet"):
            store.place.delete(key)
    diff = store.open_diff(store.diffs()[0])
    with pytest.raises(StoreError, match=r"stats group 'features/demo/chat' of diff .* array z .*precompute"):
        diff.array("features/demo/chat", "z")
    with pytest.raises(StoreError, match=r"table 'rows' of diff .* is missing.*rows.parquet"):
        diff.table("rows")
    numbers = diff.index_array("demo/token_N")
    assert numbers[0:8].tolist() == list(range(8)) and numbers[17:20].tolist() == [17, 18, 19]
    with pytest.raises(StoreError, match=r"index array 'demo/token_N' of diff .* chunk c\.1"):
        numbers[7:9]
    assert diff.array("features/demo/chat", "n").tolist() == [0, 1]
    assert len(diff.damaged()) == 3
