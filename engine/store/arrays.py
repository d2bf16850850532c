"""How arrays lie in zarr v3: whole-array writes in large chunks, blosc-lz4 with bitshuffle, safe names."""

from pathlib import Path
from urllib.parse import quote

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

# 2^20 elements: the fastest chunk measured for zarr-python; many small chunks are ten times slower.
CHUNK_ELEMENTS = 1 << 20


def create_group(folder: Path, attributes: dict[str, list[str]]) -> zarr.Group:
    """Create an empty zarr v3 group at the folder."""
    return zarr.create_group(store=LocalStore(folder), zarr_format=3, attributes=dict(attributes))


def open_group(folder: Path) -> zarr.Group:
    """Open a group for reading only."""
    return zarr.open_group(store=LocalStore(folder, read_only=True), mode="r", zarr_format=3)


def write_array(group: zarr.Group, path: str, array: NDArray[np.generic]) -> None:
    """Write a numeric array whole under the (already safe) path."""
    assert array.dtype.kind in "biuf", f"{path}: dtype {array.dtype} cannot be stored"
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    row_elements = max(1, int(np.prod(little.shape[1:], dtype=np.int64)))
    rows = min(max(1, little.shape[0]), max(1, CHUNK_ELEMENTS // row_elements)) if little.ndim else 1
    chunks = (rows, *(max(1, size) for size in little.shape[1:])) if little.ndim else ()
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=little.dtype.itemsize)
    group.create_array(path, data=little, chunks=chunks, compressors=codec, filters=None)


def read_array(group: zarr.Group, path: str) -> NDArray[np.generic]:
    """Return the whole array at the path."""
    array = group[path]
    assert isinstance(array, zarr.Array), f"{path} is not an array"
    return np.asarray(array[...])


def safe_path(name: str) -> str:
    """Return the name as a path inside a group, percent-encoded where zarr or a file system needs it."""
    parts = name.split("/")
    assert all(parts), f"{name!r} has an empty part, so it cannot name an array or a group"
    return "/".join(_safe_part(part) for part in parts)


def _safe_part(part: str) -> str:
    quoted = quote(part, safe="-._+@= ")
    # Dots would leave the folder; zarr v3 reserves two leading underscores and its metadata file's name.
    if not part.strip(".") or part == "zarr.json":
        return quoted.replace(".", "%2E")
    return "%5F" + quoted[1:] if part.startswith("__") else quoted
