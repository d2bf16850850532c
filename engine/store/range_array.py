"""Reads ranges of a long 1-D array, each from the chunks it needs and no others."""

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.layout import DOCUMENT_NAME, Layout
from ft_audit.engine.store.sealed_tree import SealedTree

# Neighbouring questions read the same chunk; each holds a few megabytes.
NUM_KEPT = 2


class RangeArray:
    """A stored 1-D array: `array[start:stop]` answers as numpy would, each chunk verified when it is read."""

    def __init__(self, tree: SealedTree) -> None:
        self._tree = tree
        self._layout = Layout.read(tree.read(DOCUMENT_NAME))
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._layout.dtype

    def __len__(self) -> int:
        return self._layout.shape[0]

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        start, stop, step = wanted.indices(len(self))
        assert step == 1, f"a step of {step}"
        rows = self._layout.chunk_rows
        found = np.empty(max(0, stop - start), dtype=self.dtype)
        for number in range(start // rows, -(-stop // rows) if stop > start else 0):
            first = number * rows
            low, high = max(start, first), min(stop, first + rows)
            found[low - start : high - start] = self._chunk(number)[low - first : high - first]
        return found

    def _chunk(self, number: int) -> NDArray[Any]:
        if number not in self._kept:
            self._kept[number] = self._layout.unpack(self._tree.read(self._layout.chunk_name(number)))
            if len(self._kept) > NUM_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]
