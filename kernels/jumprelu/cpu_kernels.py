"""Owns the two compiled passes of the CPU path: finding candidates and computing them exactly.

Both release the GIL and touch only their own rows. Compiled code is kept beside the module or in the
user's cache. Legend of shapes: T tokens of a part, C candidates, N non-zeros, D d_model, F features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

TOO_SMALL, NOT_FINITE = -1, -2
SPARE = 8  # hits are written eight at a time, of which the last may be none
# Reordering a sum is what lets the compiler use vectors; the order it chooses is fixed once compiled.
REORDER = {"reassoc", "nsz", "contract"}


def _widen(value: Any) -> Any:
    """A float32 from a float32, or from the bits of a bfloat16."""
    if isinstance(value, np.uint16):
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return np.float32(value)


@overload(_widen, inline="always")
def _widen_compiled(value: Any) -> Callable[[Any], Any]:
    # Named functions with the same annotations: numba compares the signatures.
    def from_bits(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def from_float(value: Any) -> Any:
        return np.float32(value)

    return from_bits if value == types.uint16 else from_float


@njit(cache=True, nogil=True)
def _mark(
    screen_F: NDArray[np.generic],
    lowest_F: NDArray[np.float32],
    by_norm_F: NDArray[np.float32],
    by_rounding_F: NDArray[np.float32],
    norm: np.float32,
    rounding: np.float32,
    hit_F: NDArray[np.uint8],
) -> np.int32:
    """Marks what may fire; one pass over a row, in vectors."""
    num_hits = np.int32(0)
    for f in range(screen_F.shape[0]):
        least = lowest_F[f] - norm * by_norm_F[f] - rounding * by_rounding_F[f]
        hit = np.uint8(_widen(screen_F[f]) >= least)
        hit_F[f] = hit
        num_hits += np.int32(hit)
    return num_hits


@njit(cache=True, nogil=True, fastmath=REORDER)
def _norms(x_D: NDArray[np.generic], coarse_D: NDArray[np.generic]) -> tuple[float, float]:
    """|x^| and |x - x^|."""
    coarse_squares, rounding_squares = 0.0, 0.0
    for d in range(x_D.shape[0]):
        coarse = np.float64(_widen(coarse_D[d]))
        rounding = np.float64(_widen(x_D[d])) - coarse
        coarse_squares += coarse * coarse
        rounding_squares += rounding * rounding
    return np.sqrt(coarse_squares), np.sqrt(rounding_squares)


@njit(cache=True, nogil=True)
def scan(
    screen_TF: NDArray[np.generic],
    x_TD: NDArray[np.generic],
    coarse_TD: NDArray[np.generic],
    bounds_3F: NDArray[np.float32],
    candidate_C: NDArray[np.int32],
    ends_T: NDArray[np.int64],
) -> np.int64:
    """Writes the candidates of each row, ascending, and where the row ends; returns their number.

    TOO_SMALL when `candidate_C` is: the caller grows it and calls again. NOT_FINITE when a row holds NaN
    or infinity.
    """
    num_rows, width = screen_TF.shape
    lowest_F, by_norm_F, by_rounding_F = bounds_3F[0], bounds_3F[1], bounds_3F[2]
    num_words = (width + 7) // 8
    hit_F = np.zeros(8 * num_words, dtype=np.uint8)
    hit_words = hit_F.view(np.uint64)
    found = np.int64(0)
    for t in range(num_rows):
        norm, rounding = _norms(x_TD[t], coarse_TD[t])
        if not np.isfinite(norm + rounding):
            return np.int64(NOT_FINITE)
        num_hits = _mark(
            screen_TF[t], lowest_F, by_norm_F, by_rounding_F, np.float32(norm), np.float32(rounding), hit_F
        )
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
        total += x_D[d] * np.float64(_widen(w_D[d]))
    return total


@njit(cache=True, nogil=True)
def rescore(
    x_TD: NDArray[np.generic],
    w_enc_FD: NDArray[np.generic],
    bias_F: NDArray[np.float64],
    cut_F: NDArray[np.float32],
    candidate_C: NDArray[np.int32],
    ends_T: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
) -> np.int64:
    """Keeps the candidates that fire, with bfloat16 value bits; `ends_T` becomes their row ends."""
    num_rows, d_in = x_TD.shape
    x_D = np.empty(d_in, dtype=np.float64)
    kept = np.int64(0)
    c = np.int64(0)
    for t in range(num_rows):
        for d in range(d_in):
            x_D[d] = _widen(x_TD[t, d])
        end = ends_T[t]
        while c < end:
            f = candidate_C[c]
            c += 1
            pre = np.float32(_dot(x_D, w_enc_FD[f]) + bias_F[f])
            if pre > cut_F[f]:
                bits = pre.view(np.uint32)
                # Round to nearest, ties to even, as torch's conversion to bfloat16 does.
                odd = (bits >> np.uint32(16)) & np.uint32(1)
                index_N[kept] = f
                value_N[kept] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
                kept += 1
        ends_T[t] = kept
    return kept
