"""A dictionary's directions so many at a time: no float64 copy of 262k of them is ever held.

Shapes: F features, W width of the space they write into, C features of a chunk.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK_ELEMENTS = 1 << 22  # 32 MB in float64


def chunk_rows(width: int) -> int:
    """Return how many directions of this width make a chunk."""
    return max(CHUNK_ELEMENTS // width, 1)


def in_chunks(direction_FW: NDArray[np.floating]) -> Iterator[NDArray[np.float64]]:
    """Yield all directions in order, in float64 [C, W]."""
    rows = chunk_rows(direction_FW.shape[1])
    for start in range(0, len(direction_FW), rows):
        yield direction_FW[start : start + rows].astype(np.float64)
