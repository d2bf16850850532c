"""The number formats of stored rows: every id and every value comes back."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ft_audit.engine.store.arrays import read_array, read_attributes, safe_path, write_group
from ft_audit.engine.store.local_place import LocalPlace
from ft_audit.engine.store.rows import RowDelta, decode_bf16, decode_row_delta, encode_bf16
from ft_audit.engine.store.seal import TreeWriter
from ft_audit.engine.store.sealed_tree import SealedTree


def _pack(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr_T1 = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return indptr_T1, np.array([i for row in rows for i in row], dtype=np.int32)


@given(st.lists(st.sets(st.integers(0, 2**31 - 1), max_size=6).map(sorted), max_size=12))
def test_row_delta_comes_back(rows: list[list[int]]) -> None:
    indptr_T1, index_N = _pack(rows)
    delta_N = RowDelta(indptr_T1, index_N)[:]
    assert delta_N.dtype == np.uint32
    assert decode_row_delta(indptr_T1, delta_N).tolist() == index_N.tolist()


def test_row_delta_starts_anew_in_every_row() -> None:
    indptr_T1, index_N = _pack([[], [5, 9, 100], [], [3], [3, 4]])
    assert RowDelta(indptr_T1, index_N)[:].tolist() == [5, 4, 91, 3, 3, 1]


@pytest.mark.parametrize("rows", [[[4, 4]], [[5, 4]], [[0], [1, 2, 2]]])
def test_ids_that_do_not_ascend_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(AssertionError, match="ascend"):
        RowDelta(*_pack(rows))[:]


def test_bf16_rounds_to_nearest_even() -> None:
    # 1 + 2^-8 lies midway between 1 and 1 + 2^-7; 1 + 3 * 2^-8 midway between 1 + 2^-7 and 1 + 2^-6.
    given_N = np.array([0.0, 1.0, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, 3.0e38, 88_000.0], dtype=np.float32)
    assert decode_bf16(encode_bf16(given_N)).tolist()[:5] == [0.0, 1.0, -2.5, 1.0, 1 + 2**-6]
    assert np.allclose(decode_bf16(encode_bf16(given_N)), given_N, rtol=2**-8)


def test_bf16_bits_come_back_exactly() -> None:
    bits = np.arange(0, 0x7F80, dtype=np.uint16)
    assert np.array_equal(encode_bf16(decode_bf16(bits)), bits)


def test_bf16_refuses_nan() -> None:
    with pytest.raises(AssertionError, match="finite"):
        encode_bf16(np.array([np.nan], dtype=np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0,), np.uint32),
        np.zeros((0, 7), np.float32),
        np.arange(2**20 + 3, dtype=np.uint32),
        np.arange(30, dtype=np.float64).reshape(10, 3)[::2],
        np.array([True, False]),
        np.array(3.5),
        np.arange(4, dtype=">i8"),
    ],
    ids=["empty", "empty-2d", "two-chunks", "strided", "bool", "scalar", "big-endian"],
)
def test_arrays_come_back_and_zarr_reads_them_too(tmp_path: Path, array: np.ndarray) -> None:
    tree = written(tmp_path, {"a/b": array})
    for back in (read_array(tree, "a/b"), zarr.open_group(tmp_path / "g", mode="r")["a"]["b"][...]):
        assert back.shape == array.shape
        assert back.dtype.kind == array.dtype.kind and np.array_equal(back, array)
    assert tree.damaged() == []


def written(folder: Path, arrays: dict[str, np.ndarray]) -> SealedTree:
    place = LocalPlace(str(folder))
    with TreeWriter(place, "g") as tree:
        write_group(tree, {"kind": list(arrays)}, arrays)
        seal = tree.seal()
    return SealedTree(place, "g", seal, "group", "write it again")


def test_attributes_come_back_and_zarr_reads_them_too(tmp_path: Path) -> None:
    tree = written(tmp_path, {"a": np.zeros(1)})
    assert read_attributes(tree) == {"kind": ["a"]} == dict(zarr.open_group(tmp_path / "g", mode="r").attrs)


def test_no_name_leaves_its_folder_or_meets_a_name_of_ours(tmp_path: Path) -> None:
    names = [
        "..",
        ".",
        "__meta",
        "zarr.json",
        "checksums.json",
        "a b/ü%",
        "dir/../x",
        "features/google/gemma",
    ]
    paths = [safe_path(name) for name in [*names, "a\\b"]]
    assert len(set(paths)) == len(paths)
    assert not any(".." in path.split("/") or path.startswith("__") for path in paths)
    tree = written(tmp_path, {path: np.array([i]) for i, path in enumerate(paths)})
    assert [int(read_array(tree, path)[0]) for path in paths] == list(range(len(paths)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g"]


@pytest.mark.parametrize("name", ["", "a//b", "/a", "a/"])
def test_empty_parts_of_a_name_are_refused(name: str) -> None:
    with pytest.raises(AssertionError, match="empty part"):
        safe_path(name)
