"""Owns the compiled passes of the CPU path: finding candidates, computing them exactly, joining the rows.

All release the GIL and touch only their own rows. Compiled code is kept beside the module or in the
user's cache. Legend of shapes: T tokens of a part, C candidates, N non-zeros, D d_model, F features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

TOO_SMALL = -1
SPARE = 8  # hits are written eight at a time, of which the last may be none
# Reordering a sum is what lets the compiler use vectors; the order it chooses is fixed once compiled.
REORDER = {"reassoc", "nsz", "contract"}


def widen(value: Any) -> Any:
    """A float32 from a float32, an int32, or the bits of a bfloat16."""
    if isinstance(value, np.uint16):
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return np.float32(value)


@overload(widen, inline="always")
def widen_compiled(value: Any) -> Callable[[Any], Any]:
    # Named functions with the same annotations: numba compares the signatures.
    def from_bits(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def from_number(value: Any) -> Any:
        return np.float32(value)

    return from_bits if value == types.uint16 else from_number


@njit(cache=True, nogil=True)
def _mark(
    screen_F: NDArray[np.generic],
    bounds_3F: NDArray[np.float32],
    factor_3: NDArray[np.float32],
    hit_F: NDArray[np.uint8],
) -> np.int32:
    """Marks what may fire; one pass over a row, in vectors."""
    lowest_F, by_norm_F, by_rounding_F = bounds_3F[0], bounds_3F[1], bounds_3F[2]
    unit, norm, rounding = factor_3[0], factor_3[1], factor_3[2]
    num_hits = np.int32(0)
    for f in range(screen_F.shape[0]):
        least = unit * lowest_F[f] - norm * by_norm_F[f] - rounding * by_rounding_F[f]
        hit = np.uint8(widen(screen_F[f]) >= least)
        hit_F[f] = hit
        num_hits += np.int32(hit)
    return num_hits


@njit(cache=True, nogil=True, fastmath=REORDER)
def _norms(x_D: NDArray[np.generic], coarse_D: NDArray[np.generic]) -> tuple[float, float]:
    """|x^| and |x - x^|."""
    coarse_squares, rounding_squares = 0.0, 0.0
    for d in range(x_D.shape[0]):
        coarse = np.float64(widen(coarse_D[d]))
        rounding = np.float64(widen(x_D[d])) - coarse
        coarse_squares += coarse * coarse
        rounding_squares += rounding * rounding
    return np.sqrt(coarse_squares), np.sqrt(rounding_squares)


@njit(cache=True, nogil=True)
def measure_rows(
    x_TD: NDArray[np.generic], coarse_TD: NDArray[np.generic], factor_T3: NDArray[np.float32]
) -> bool:
    """Writes 1, |x^| and |x - x^| of each row, which `scan` needs; False on NaN or infinity."""
    for t in range(x_TD.shape[0]):
        norm, rounding = _norms(x_TD[t], coarse_TD[t])
        if not np.isfinite(norm + rounding):
            return False
        factor_T3[t, 0] = 1.0
        factor_T3[t, 1] = norm
        factor_T3[t, 2] = rounding
    return True


@njit(cache=True, nogil=True)
def scan(
    screen_TF: NDArray[np.generic],
    bounds_3F: NDArray[np.float32],
    factor_T3: NDArray[np.float32],
    candidate_C: NDArray[np.int32],
    ends_T: NDArray[np.int64],
) -> np.int64:
    """Writes the candidates of each row, ascending, and where the row ends; returns their number.

    TOO_SMALL when `candidate_C` is: the caller grows it and calls again.
    """
    num_rows, width = screen_TF.shape
    num_words = (width + 7) // 8
    hit_F = np.zeros(8 * num_words, dtype=np.uint8)
    hit_words = hit_F.view(np.uint64)
    found = np.int64(0)
    for t in range(num_rows):
        num_hits = _mark(screen_TF[t], bounds_3F, factor_T3[t], hit_F)
        if found + num_hits + SPARE > candidate_C.shape[0]:
            return np.int64(TOO_SMALL)
        for word in range(num_words):
            if hit_words[word]:
                for f in range(8 * word, 8 * word + 8):
                    # No branch: what is not a hit is overwritten by the next one.
                    candidate_C[found] = f
                    found += np.int64(hit_F[f])
        ends_T[t] = found
    return found


@njit(cache=True, nogil=True, fastmath=REORDER)
def _dot(x_D: NDArray[np.float64], w_D: NDArray[np.generic]) -> float:
    total = 0.0
    for d in range(x_D.shape[0]):
        total += x_D[d] * np.float64(widen(w_D[d]))
    return total


@njit(cache=True, nogil=True)
def rescore(
    x_TD: NDArray[np.generic],
    w_enc_FD: NDArray[np.generic],
    bias_F: NDArray[np.float64],
    cut_F: NDArray[np.float32],
    first: int,
    candidate_C: NDArray[np.int32],
    ends_T: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
) -> np.int64:
    """Keeps the candidates that fire, with bfloat16 value bits; `ends_T` becomes their row ends.

    Candidates count from feature `first`, of which the weights are a slice; indices are the whole's.
    """
    num_rows, d_in = x_TD.shape
    x_D = np.empty(d_in, dtype=np.float64)
    kept = np.int64(0)
    c = np.int64(0)
    for t in range(num_rows):
        end = ends_T[t]
        if c < end:
            for d in range(d_in):
                x_D[d] = widen(x_TD[t, d])
        while c < end:
            f = candidate_C[c]
            c += 1
            pre = np.float32(_dot(x_D, w_enc_FD[f]) + bias_F[f])
            if pre > cut_F[f]:
                bits = pre.view(np.uint32)
                # Round to nearest, ties to even, as torch's conversion to bfloat16 does.
                odd = (bits >> np.uint32(16)) & np.uint32(1)
                index_N[kept] = first + f
                value_N[kept] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
                kept += 1
        ends_T[t] = kept
    return kept


@njit(cache=True, nogil=True)
def join_blocks(
    starts_BT: NDArray[np.int64],
    ends_BT: NDArray[np.int64],
    index_M: NDArray[np.int32],
    value_M: NDArray[np.uint16],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
) -> None:
    """Copies each row's pieces, one per block of features, side by side; blocks ascend and so do rows."""
    n = np.int64(0)
    for t in range(starts_BT.shape[1]):
        for block in range(starts_BT.shape[0]):
            for m in range(starts_BT[block, t], ends_BT[block, t]):
                index_N[n] = index_M[m]
                value_N[n] = value_M[m]
                n += 1
