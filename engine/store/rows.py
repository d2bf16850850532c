"""The number formats of stored sparse rows: row-delta feature ids and bfloat16 bits.

T tokens, N non-zeros.
"""

import numpy as np
from numpy.typing import NDArray

MAX_ID = 2**31 - 1


class RowDelta:
    """Feature ids as differences within each row, the first id of a row as it is; ids must ascend in a row.

    Slices like a uint32 array [N] and computes no more than the slice, so that threads can share the work.
    """

    dtype = np.dtype(np.uint32)

    def __init__(self, indptr_T1: NDArray[np.int64], index_N: NDArray[np.integer]) -> None:
        self._index = index_N
        self._starts = _row_starts(indptr_T1)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._index.shape

    def __getitem__(self, wanted: slice) -> NDArray[np.uint32]:
        start, stop, step = wanted.indices(self._index.shape[0])
        assert step == 1, f"a step of {step}"
        index = self._index[start:stop]
        assert index.size == 0 or int(index.max()) <= MAX_ID, f"feature ids must not exceed {MAX_ID}"
        index = index.astype(np.int32, copy=False)
        delta = np.empty(index.size, dtype=np.int32)
        np.subtract(index[1:], index[:-1], out=delta[1:])
        delta[:1] = index[:1] - self._index[start - 1 : start] if start else 1
        firsts = (
            self._starts[np.searchsorted(self._starts, start) : np.searchsorted(self._starts, stop)] - start
        )
        assert bool((index[firsts] >= 0).all()), "feature ids must not be negative"
        delta[firsts] = 1
        assert bool((delta > 0).all()), "feature ids must ascend within a row"
        delta[firsts] = index[firsts]
        return delta.view(np.uint32)


def decode_row_delta(indptr_T1: NDArray[np.int64], delta_N: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Return the feature ids that `RowDelta` was given."""
    # In 32 bits: the sums run over, and so does what is taken off them.
    total = np.cumsum(delta_N, dtype=np.uint32)
    counts = np.diff(indptr_T1)
    starts = indptr_T1[:-1][counts > 0]
    # What the running sum held before a row began is taken off the whole row.
    before = np.where(starts > 0, total[starts - 1], np.uint32(0))
    total -= np.repeat(before, counts[counts > 0])
    return total.view(np.int32)


def encode_bf16(value: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even; the values must be finite."""
    assert bool(np.isfinite(value).all()), "bfloat16 bits are stored for finite values only"
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 value of bfloat16 bits, exactly."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _row_starts(indptr_T1: NDArray[np.int64]) -> NDArray[np.int64]:
    return indptr_T1[:-1][np.diff(indptr_T1) > 0]
