"""Groups of arrays in sealed trees: written and read by several threads, one chunk each.

What is written is plain zarr v3, which any reader of it opens. The chunks are packed here, their checksums
taken in the same thread: nearly twice as fast as the writing of zarr-python.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.canonical import pretty_json
from ft_audit.engine.store.layout import DOCUMENT_NAME, Layout
from ft_audit.engine.store.seal import CHECKSUMS_NAME, NUM_THREADS, TreeWriter
from ft_audit.engine.store.sealed_tree import SealedTree


class Sliceable(Protocol):
    """An array, or what computes parts of one when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, wanted: Any, /) -> Any: ...


def write_group(
    tree: TreeWriter, attributes: Mapping[str, list[str]], arrays: Mapping[str, Sliceable]
) -> None:
    """Write a zarr group with these numeric arrays under their (already safe) paths."""
    parents = {parent for path in arrays for parent in accumulate(path.split("/")[:-1], "{}/{}".format)}
    tree.put(DOCUMENT_NAME, partial(_group_document, dict(attributes)))
    for parent in sorted(parents):
        tree.put(f"{parent}/{DOCUMENT_NAME}", partial(_group_document, {}))
    for path, array in arrays.items():
        layout = Layout.of(array.shape, array.dtype)
        tree.put(f"{path}/{DOCUMENT_NAME}", layout.document)
        for number in range(layout.num_chunks):
            tree.put(f"{path}/{layout.chunk_name(number)}", partial(_pack, array, layout, number))


def read_arrays(tree: SealedTree, paths: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return whole arrays by their paths, every file verified."""
    tree.files()  # once, not by every thread
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        layouts = dict(zip(paths, pool.map(partial(_read_layout, tree), paths), strict=True))
        wholes = {path: np.empty(layout.shape, dtype=layout.dtype) for path, layout in layouts.items()}
        chunks = [(path, number) for path in wholes for number in range(layouts[path].num_chunks)]

        def fill(chunk: tuple[str, int]) -> None:
            path, number = chunk
            layout = layouts[path]
            packed = tree.read(f"{path}/{layout.chunk_name(number)}")
            layout.unpack_into(wholes[path], number, packed)

        for _ in pool.map(fill, chunks):
            pass
    return wholes


def read_array(tree: SealedTree, path: str) -> NDArray[Any]:
    """Return one whole array, every file verified."""
    return read_arrays(tree, [path])[path]


def read_attributes(tree: SealedTree) -> dict[str, list[str]]:
    """Return the attributes of the tree's group."""
    attributes: dict[str, list[str]] = json.loads(tree.read(DOCUMENT_NAME))["attributes"]
    return attributes


def _pack(array: Sliceable, layout: Layout, number: int) -> bytes:
    return layout.pack(array[layout.rows_of(number)] if layout.shape else array[()])


def _read_layout(tree: SealedTree, path: str) -> Layout:
    return Layout.read(tree.read(f"{path}/{DOCUMENT_NAME}"))


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
