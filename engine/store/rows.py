"""The number formats of stored sparse rows: row-delta feature ids and bfloat16 bits.

T tokens, N non-zeros.
"""

import numpy as np
from numpy.typing import NDArray


def encode_row_delta(indptr_T1: NDArray[np.int64], index_N: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return ids as differences within each row, the first id of a row as it is; ids must ascend in a row."""
    index = index_N.astype(np.int64, copy=False)
    delta = np.diff(index, prepend=np.int64(0))
    starts = _row_starts(indptr_T1)
    inside = np.ones(index.size, dtype=bool)
    inside[starts] = False
    assert bool((delta[inside] > 0).all()), "feature ids must ascend within a row"
    delta[starts] = index[starts]
    assert index.size == 0 or int(index.min()) >= 0, "feature ids must not be negative"
    return delta.astype(np.uint32)


def decode_row_delta(indptr_T1: NDArray[np.int64], delta_N: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Return the feature ids that `encode_row_delta` was given."""
    total = np.cumsum(delta_N, dtype=np.int64)
    counts = np.diff(indptr_T1)
    starts = indptr_T1[:-1][counts > 0]
    # What the running sum held before a row began is taken off the whole row.
    before = np.where(starts > 0, total[starts - 1], 0)
    index_N: NDArray[np.int32] = (total - np.repeat(before, counts[counts > 0])).astype(np.int32)
    return index_N


def encode_bf16(value: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even; the values must be finite."""
    assert bool(np.isfinite(value).all()), "bfloat16 bits are stored for finite values only"
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 value of bfloat16 bits, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _row_starts(indptr_T1: NDArray[np.int64]) -> NDArray[np.int64]:
    return indptr_T1[:-1][np.diff(indptr_T1) > 0]
