"""The feature-major copy by plain sorting: the ground truth of the compiled path."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ft_audit.kernels.feature_index.feature_major import NO_PEAK, FeatureMajor, check_rows


def sort_by_feature(
    indptr_T1: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.uint16],
    order_T: NDArray[np.int64],
    token_T: NDArray[np.unsignedinteger],
    num_features: int,
) -> FeatureMajor:
    """The rows `order_T`, each under the token number that `token_T` gives it, feature by feature."""
    check_rows(indptr_T1, index_N, value_N, num_features)
    entries = [
        (int(index_N[n]), int(token_T[t]), int(value_N[n]))
        for t in order_T
        for n in range(indptr_T1[t], indptr_T1[t + 1])
    ]
    return _from_entries(sorted(entries), num_features, token_T.dtype)


def merge_parts(parts: Sequence[FeatureMajor]) -> FeatureMajor:
    """Parts over different tokens as one."""
    entries = [
        (feature, int(part.token_N[n]), int(part.value_N[n]))
        for part in parts
        for feature in range(part.num_features)
        for n in range(part.indptr_F1[feature], part.indptr_F1[feature + 1])
    ]
    return _from_entries(sorted(entries), parts[0].num_features, parts[0].token_N.dtype)


def prompt_peaks(
    rows: FeatureMajor, prompt_indptr_P1: NDArray[np.int64], num_peaks: int
) -> NDArray[np.uint32]:
    """Each feature's entries that are the strongest of their prompt, strongest first, counted from its own
    first entry, [F, K]; ties go to the earlier token."""
    peak_FK = np.full((rows.num_features, num_peaks), NO_PEAK, dtype=np.uint32)
    for feature in range(rows.num_features):
        mine = rows.slice(feature, feature + 1)
        best: dict[int, int] = {}
        for n, (token, value) in enumerate(zip(mine.token_N, mine.value_N, strict=True)):
            prompt = int(np.searchsorted(prompt_indptr_P1, token, side="right")) - 1
            if prompt not in best or value > mine.value_N[best[prompt]]:
                best[prompt] = n
        ranked = sorted(best.values(), key=lambda n: (-int(mine.value_N[n]), n))[:num_peaks]
        peak_FK[feature, : len(ranked)] = ranked
    return peak_FK


def _from_entries(
    entries: Sequence[tuple[int, int, int]], num_features: int, dtype: np.dtype[np.unsignedinteger]
) -> FeatureMajor:
    count_F = np.bincount([feature for feature, _, _ in entries] or [0], minlength=num_features)
    indptr_F1 = np.concatenate([[0], np.cumsum(count_F if entries else 0 * count_F)]).astype(np.int64)
    token_N = np.array([token for _, token, _ in entries], dtype=dtype)
    return FeatureMajor(indptr_F1, token_N, np.array([value for _, _, value in entries], dtype=np.uint16))
