"""How one array lies in zarr v3: its description, and its chunks, packed by blosc-lz4 with bitshuffle."""

import json
from math import prod
from typing import Any, NamedTuple, Self

import numpy as np
from numcodecs.blosc import BITSHUFFLE, Blosc
from numpy.typing import NDArray

from ft_audit.engine.store.canonical import pretty_json

# 2^20 elements: larger chunks are no faster, and many small ones cost a file each.
CHUNK_ELEMENTS = 1 << 20
DOCUMENT_NAME = "zarr.json"
_CODEC = {"cname": "lz4", "clevel": 5, "blocksize": 0}


class Layout(NamedTuple):
    """An array's shape, the rows of its first axis in one chunk, and its type."""

    shape: tuple[int, ...]
    chunk_rows: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Self:
        """Return how an array of known size is stored; only numbers and truth values are."""
        assert dtype.kind in "biuf", f"dtype {dtype} cannot be stored"
        rows = max(1, CHUNK_ELEMENTS // max(1, prod(shape[1:])))
        return cls(shape, min(rows, max(1, shape[0])) if shape else 1, dtype.newbyteorder("="))

    @classmethod
    def read(cls, document: bytes) -> Self:
        """Return what `document` was called on."""
        fields = json.loads(document)
        chunk_shape = fields["chunk_grid"]["configuration"]["chunk_shape"]
        rows = chunk_shape[0] if chunk_shape else 1
        return cls(tuple(fields["shape"]), rows, np.dtype(fields["data_type"]))

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk_rows, *(max(1, size) for size in self.shape[1:])) if self.shape else ()

    @property
    def num_chunks(self) -> int:
        if not self.shape:
            return 1
        return -(-self.shape[0] // self.chunk_rows) if prod(self.shape) else 0

    def rows_of(self, number: int) -> slice:
        """Return the rows that a chunk holds; it may reach beyond the array's end."""
        return slice(number * self.chunk_rows, (number + 1) * self.chunk_rows)

    def chunk_name(self, number: int) -> str:
        """Return the file of a chunk, beside the description; only the first axis is cut."""
        return ".".join(["c", *([str(number)] if self.shape else []), *("0" for _ in self.shape[1:])])

    def document(self) -> bytes:
        """Return the array's zarr.json."""
        codec = {**_CODEC, "shuffle": "bitshuffle", "typesize": self.dtype.itemsize}
        return pretty_json(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": self.shape,
                "data_type": self.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.chunk_shape}},
                # No folder for the chunks: every folder is one more to sync.
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
                "fill_value": np.zeros((), self.dtype).item(),
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "blosc", "configuration": codec},
                ],
                "attributes": {},
            }
        )

    def pack(self, part: NDArray[Any]) -> bytes:
        """Return a chunk's file; a part shorter than a chunk is filled with zeros."""
        little = np.asarray(part, dtype=self.dtype.newbyteorder("<"), order="C")
        if little.shape != self.chunk_shape:
            padded = np.zeros(self.chunk_shape, dtype=little.dtype)
            padded[tuple(slice(size) for size in little.shape)] = little
            little = padded
        codec = Blosc(shuffle=BITSHUFFLE, typesize=self.dtype.itemsize, **_CODEC)
        return bytes(codec.encode(little))

    def unpack(self, packed: bytes) -> NDArray[Any]:
        """Return a chunk, its filling included."""
        flat = np.frombuffer(Blosc().decode(packed), dtype=self.dtype.newbyteorder("<"))
        return flat.reshape(self.chunk_shape)

    def unpack_into(self, whole: NDArray[Any], number: int, packed: bytes) -> None:
        """Put a chunk in its place of the whole array."""
        rows = whole[self.rows_of(number)] if self.shape else whole
        if rows.shape == self.chunk_shape and rows.dtype.newbyteorder("<") == rows.dtype:
            Blosc().decode(packed, out=rows)
        else:
            rows[...] = self.unpack(packed)[: len(rows)] if self.shape else self.unpack(packed)
