"""How arrays lie in zarr v3: chunks of a million elements, blosc-lz4 with bitshuffle, safe names.

The chunks are packed and unpacked here, several at once: zarr-python spends more on scheduling them than the
packing takes. What is written is plain zarr, which any reader of zarr v3 opens.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numcodecs.blosc import BITSHUFFLE, Blosc
from numpy.typing import NDArray

from ft_audit.engine.store.canonical import pretty_json
from ft_audit.engine.store.seal import CHECKSUMS_NAME, TreeWriter
from ft_audit.engine.store.sealed_tree import SealedTree

# 2^20 elements: larger chunks are no faster, and many small ones cost a file each.
CHUNK_ELEMENTS = 1 << 20
DOCUMENT_NAME = "zarr.json"
_CODEC = {"cname": "lz4", "clevel": 5, "blocksize": 0}


class Layout(NamedTuple):
    """An array's shape, the rows of its first axis in one chunk, and its type."""

    shape: tuple[int, ...]
    chunk_rows: int
    dtype: np.dtype[Any]

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk_rows, *(max(1, size) for size in self.shape[1:])) if self.shape else ()

    @property
    def num_chunks(self) -> int:
        if not self.shape:
            return 1
        return -(-self.shape[0] // self.chunk_rows) if prod(self.shape) else 0

    def chunk_name(self, number: int) -> str:
        """Return the file of a chunk; only the first axis is cut."""
        return "/".join(["c", *([str(number)] if self.shape else []), *("0" for _ in self.shape[1:])])


def write_group(
    tree: TreeWriter, attributes: Mapping[str, list[str]], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a zarr group with these numeric arrays under their (already safe) paths."""
    tree.put(DOCUMENT_NAME, partial(_group_document, dict(attributes)))
    parents = {parent for path in arrays for parent in accumulate(path.split("/")[:-1], "{}/{}".format)}
    for parent in sorted(parents):
        tree.put(f"{parent}/{DOCUMENT_NAME}", partial(_group_document, {}))
    for path, array in arrays.items():
        write_array(tree, path, array)


def write_array(tree: TreeWriter, path: str, array: NDArray[Any]) -> None:
    """Write a numeric array whole under the (already safe) path."""
    assert array.dtype.kind in "biuf", f"{path}: dtype {array.dtype} cannot be stored"
    rows = max(1, CHUNK_ELEMENTS // max(1, prod(array.shape[1:])))
    rows = min(rows, max(1, array.shape[0])) if array.shape else 1
    layout = Layout(array.shape, rows, array.dtype.newbyteorder("="))
    tree.put(f"{path}/{DOCUMENT_NAME}", partial(array_document, layout))
    for number in range(layout.num_chunks):
        part = array[number * rows : (number + 1) * rows] if array.shape else array
        tree.put(f"{path}/{layout.chunk_name(number)}", partial(pack_chunk, part, layout))


def read_array(tree: SealedTree, path: str) -> NDArray[Any]:
    """Return the whole array at the path, verified."""
    layout = read_layout(tree, path)
    whole = np.empty(layout.shape, dtype=layout.dtype)
    for number, part in _chunks(tree, path, layout):
        if layout.shape:
            rows = whole[number * layout.chunk_rows : (number + 1) * layout.chunk_rows]
            rows[:] = part[: len(rows)]
        else:
            whole[...] = part
    return whole


def _chunks(tree: SealedTree, path: str, layout: Layout) -> Iterator[tuple[int, NDArray[Any]]]:
    for number in range(layout.num_chunks):
        yield number, read_chunk(tree, path, layout, number)


def read_layout(tree: SealedTree, path: str) -> Layout:
    """Return how the array at the path lies."""
    document = json.loads(tree.read(_inside(path, DOCUMENT_NAME)))
    chunk_shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    return Layout(
        tuple(document["shape"]), chunk_shape[0] if chunk_shape else 1, np.dtype(document["data_type"])
    )


def read_attributes(tree: SealedTree) -> dict[str, list[str]]:
    """Return the attributes of the tree's group."""
    attributes: dict[str, list[str]] = json.loads(tree.read(DOCUMENT_NAME))["attributes"]
    return attributes


def read_chunk(tree: SealedTree, path: str, layout: Layout, number: int) -> NDArray[Any]:
    """Return one chunk, its filling included."""
    packed = tree.read(_inside(path, layout.chunk_name(number)))
    flat = np.frombuffer(Blosc().decode(packed), dtype=layout.dtype.newbyteorder("<"))
    return flat.reshape(layout.chunk_shape)


def pack_chunk(part: NDArray[Any], layout: Layout) -> bytes:
    """Return a chunk's file; a part shorter than a chunk is filled with zeros."""
    little = np.asarray(part, dtype=layout.dtype.newbyteorder("<"), order="C")
    if little.shape != layout.chunk_shape:
        padded = np.zeros(layout.chunk_shape, dtype=little.dtype)
        padded[tuple(slice(size) for size in little.shape)] = little
        little = padded
    codec = Blosc(shuffle=BITSHUFFLE, typesize=layout.dtype.itemsize, **_CODEC)
    return bytes(codec.encode(little))


def array_document(layout: Layout) -> bytes:
    """Return the array's zarr.json."""
    codec = {**_CODEC, "shuffle": "bitshuffle", "typesize": layout.dtype.itemsize}
    return pretty_json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": layout.shape,
            "data_type": layout.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.chunk_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": np.zeros((), layout.dtype).item(),
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "blosc", "configuration": codec},
            ],
            "attributes": {},
        }
    )


def _inside(path: str, name: str) -> str:
    # A tree may be one array alone.
    return f"{path}/{name}" if path else name


def _group_document(attributes: dict[str, list[str]]) -> bytes:
    return pretty_json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def safe_path(name: str) -> str:
    """Return the name as a path inside a group, percent-encoded where zarr or a file system needs it."""
    parts = name.split("/")
    assert all(parts), f"{name!r} has an empty part, so it cannot name an array or a group"
    return "/".join(_safe_part(part) for part in parts)


def _safe_part(part: str) -> str:
    quoted = quote(part, safe="-._+@= ")
    # Dots would leave the folder; zarr v3 reserves two leading underscores, and two names are files of ours.
    if not part.strip(".") or part in (DOCUMENT_NAME, CHECKSUMS_NAME):
        return quoted.replace(".", "%2E")
    return "%5F" + quoted[1:] if part.startswith("__") else quoted
