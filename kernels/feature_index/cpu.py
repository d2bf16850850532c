"""The feature-major copy in compiled passes: a counting sort a segment, then a merge of the sorted parts.

Legend: T tokens, N non-zeros, F features, P prompts, K peaks kept a feature. The result depends on the rows
alone, not on how they were cut into parts. All loops release the GIL, so that segments sort side by side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.kernels.feature_index.feature_major import MAX_TOKENS, NO_PEAK, FeatureMajor, check_rows


def sort_by_feature(
    indptr_T1: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
    order_T: NDArray[np.int64],
    token_T: NDArray[np.unsignedinteger],
    num_features: int,
) -> FeatureMajor:
    """The rows `order_T`, each under the token number that `token_T` gives it, feature by feature.

    Rows that `order_T` does not name are left out; along it the token numbers must ascend.
    """
    check_rows(indptr_T1, index_N, value_N, num_features)
    assert bool((np.diff(token_T[order_T].astype(np.int64)) > 0).all()), "token numbers must ascend"
    indptr_F1 = np.zeros(num_features + 1, dtype=np.int64)
    _count(indptr_T1, index_N, order_T, indptr_F1[1:])
    np.cumsum(indptr_F1, out=indptr_F1)
    token_out_N = np.empty(int(indptr_F1[-1]), dtype=token_T.dtype)
    value_out_N = np.empty(len(token_out_N), dtype=np.uint16)
    _scatter(indptr_T1, index_N, value_N, order_T, token_T, indptr_F1[:-1].copy(), token_out_N, value_out_N)
    return FeatureMajor(indptr_F1, token_out_N, value_out_N)


def merge_parts(parts: Sequence[FeatureMajor]) -> FeatureMajor:
    """Parts over different tokens as one; all of the same features."""
    assert parts, "nothing to merge"
    indptr_F1 = np.zeros_like(parts[0].indptr_F1)
    for part in parts:
        indptr_F1 += part.indptr_F1
    key_N = np.empty(int(indptr_F1[-1]), dtype=np.uint64)
    cursor_F = indptr_F1[:-1].copy()
    for part in parts:
        assert int(part.token_N[-1] if len(part.token_N) else 0) < MAX_TOKENS
        _pack(part.indptr_F1, part.token_N, part.value_N, cursor_F, key_N)
    # The token stands above the value, and no token comes twice in a feature: numpy's vectorised sort of
    # plain integers is several times faster than a merge that branches on which part is behind.
    for feature in np.flatnonzero(np.diff(indptr_F1) > 1):
        key_N[indptr_F1[feature] : indptr_F1[feature + 1]].sort()
    token_N = (key_N >> np.uint64(16)).astype(parts[0].token_N.dtype)
    return FeatureMajor(indptr_F1, token_N, key_N.astype(np.uint16))


def prompt_peaks(
    rows: FeatureMajor, prompt_indptr_P1: NDArray[np.int64], num_peaks: int
) -> NDArray[np.uint32]:
    """Each feature's entries that are the strongest of their prompt, strongest first, [F, K].

    An entry is its place among the feature's own, from 0; ties go to the earlier token, and NO_PEAK fills the
    rows of features that fired in fewer prompts than K.
    """
    assert len(rows.token_N) == 0 or int(rows.token_N.max()) < int(prompt_indptr_P1[-1]), (
        "a token of no prompt"
    )
    peak_FK = np.full((rows.num_features, num_peaks), NO_PEAK, dtype=np.uint32)
    _peaks(rows.indptr_F1, rows.token_N, rows.value_N, prompt_indptr_P1, peak_FK)
    return peak_FK


@njit(cache=True, nogil=True)
def _count(
    indptr_T1: NDArray[np.int64],
    index_N: NDArray[np.int32],
    order_T: NDArray[np.int64],
    count_F: NDArray[np.int64],
) -> None:
    for t in order_T:
        for n in range(indptr_T1[t], indptr_T1[t + 1]):
            count_F[index_N[n]] += 1


@njit(cache=True, nogil=True)
def _scatter(
    indptr_T1: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
    order_T: NDArray[np.int64],
    token_T: NDArray[np.unsignedinteger],
    cursor_F: NDArray[np.int64],
    token_out_N: NDArray[np.unsignedinteger],
    value_out_N: NDArray[np.uint16],
) -> None:
    for t in order_T:
        token = token_T[t]
        for n in range(indptr_T1[t], indptr_T1[t + 1]):
            place = cursor_F[index_N[n]]
            cursor_F[index_N[n]] = place + 1
            token_out_N[place] = token
            value_out_N[place] = value_N[n]


@njit(cache=True, nogil=True)
def _pack(
    indptr_F1: NDArray[np.int64],
    token_N: NDArray[np.unsignedinteger],
    value_N: NDArray[np.uint16],
    cursor_F: NDArray[np.int64],
    key_N: NDArray[np.uint64],
) -> None:
    for f in range(len(cursor_F)):
        place = cursor_F[f]
        for n in range(indptr_F1[f], indptr_F1[f + 1]):
            key_N[place] = (np.uint64(token_N[n]) << np.uint64(16)) | np.uint64(value_N[n])
            place += 1
        cursor_F[f] = place


@njit(cache=True, nogil=True)
def _peaks(
    indptr_F1: NDArray[np.int64],
    token_N: NDArray[np.unsignedinteger],
    value_N: NDArray[np.uint16],
    prompt_indptr_P1: NDArray[np.int64],
    peak_FK: NDArray[np.uint32],
) -> None:
    num_peaks = peak_FK.shape[1]
    for f in range(len(indptr_F1) - 1):
        first, last = indptr_F1[f], indptr_F1[f + 1]
        prompt, kept = 0, 0
        n = first
        while n < last:
            prompt = _prompt_of(token_N[n], prompt, prompt_indptr_P1)
            stop = prompt_indptr_P1[prompt + 1]
            best = n
            n += 1
            while n < last and np.int64(token_N[n]) < stop:
                if value_N[n] > value_N[best]:
                    best = n
                n += 1
            # Later prompts lose ties, so most of them end at this one comparison.
            if kept == num_peaks and value_N[best] <= value_N[first + peak_FK[f, kept - 1]]:
                continue
            kept = min(kept + 1, num_peaks)
            place = kept - 1
            while place > 0 and value_N[best] > value_N[first + peak_FK[f, place - 1]]:
                peak_FK[f, place] = peak_FK[f, place - 1]
                place -= 1
            peak_FK[f, place] = best - first


@njit(cache=True, nogil=True)
def _prompt_of(number: Any, prompt: int, prompt_indptr_P1: NDArray[np.int64]) -> int:
    """The prompt that holds the token, at or after `prompt`: steps that double, then a bisection."""
    token = np.int64(number)
    num_prompts = len(prompt_indptr_P1) - 1
    low, step = prompt, 1
    high = low + 1
    while high < num_prompts and prompt_indptr_P1[high] <= token:
        low = high
        high = min(high + step, num_prompts)
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if prompt_indptr_P1[middle] <= token:
            low = middle
        else:
            high = middle
    return low
