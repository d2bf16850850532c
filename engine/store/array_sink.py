"""Writes an array of unknown length piece by piece, in whole chunks, holding no more than a few of them."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ft_audit.engine.store.layout import DOCUMENT_NAME, Layout
from ft_audit.engine.store.manifest import IndexEntry
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.seal import TreeWriter


class ArraySink:
    """One 1-D array being written; `close` seals it."""

    def __init__(self, place: Place, folder: str, dtype: DTypeLike, chunk_elements: int) -> None:
        assert chunk_elements > 0, f"chunks of {chunk_elements} elements"
        self._tree = TreeWriter(place, folder)
        self._chunk = np.empty(chunk_elements, dtype=dtype)
        assert self._chunk.dtype.kind in "biuf", f"dtype {self._chunk.dtype} cannot be stored"
        self._filled = 0
        self._num_chunks = 0
        self.entry: IndexEntry | None = None
        """What a reader needs to know of the array; None until it is closed."""

    def __len__(self) -> int:
        return self._num_chunks * self._chunk.size + self._filled

    def append(self, values: NDArray[Any]) -> None:
        """Add the values at the end; their type must be the sink's."""
        assert self.entry is None, "the sink is closed"
        assert values.ndim == 1, f"shape {values.shape}"
        assert values.dtype == self._chunk.dtype, f"{values.dtype} for an array of {self._chunk.dtype}"
        while values.size:
            taken = min(values.size, self._chunk.size - self._filled)
            self._chunk[self._filled : self._filled + taken] = values[:taken]
            self._filled += taken
            values = values[taken:]
            if self._filled == self._chunk.size:
                self._put_chunk()

    def close(self) -> None:
        """Write what is left and seal the array; a second time does nothing."""
        if self.entry is not None:
            return
        length = len(self)
        if self._filled:
            self._put_chunk()
        self._tree.put(DOCUMENT_NAME, self._layout(length).document)
        self.entry = IndexEntry(length=length, checksum=self._tree.seal())
        self._tree.close()

    def abandon(self) -> None:
        """Stop writing without a seal."""
        self._tree.close()

    def _put_chunk(self) -> None:
        layout = self._layout(self._chunk.size)
        part = self._chunk[: self._filled]
        self._tree.put(layout.chunk_name(self._num_chunks), partial(layout.pack, part))
        # The chunk is packed in another thread: the next values get memory of their own.
        self._chunk = np.empty_like(self._chunk)
        self._num_chunks += 1
        self._filled = 0

    def _layout(self, length: int) -> Layout:
        return Layout((length,), self._chunk.size, self._chunk.dtype)
