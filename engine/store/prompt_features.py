"""What every feature did in some prompts of a suite, in both models, from the copy sorted by feature.

Legend: T tokens, P prompts of the suite, G prompts asked for, F features, N pairs of a feature and a prompt
in which it fired in either model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.feature_index_reader import SIDES, FeatureIndex

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PromptFeatures:
    """Means over each prompt's tokens that count in both models; what is not listed is 0."""

    num_features: int
    counted_G: NDArray[np.int64]
    """Tokens of each prompt that count in both models."""
    feature_N: NDArray[np.int64]
    place_N: NDArray[np.int64]
    """The prompt's place among those asked for."""
    mean_base_N: FloatArray
    mean_tuned_N: FloatArray
    rate_base_N: FloatArray
    rate_tuned_N: FloatArray


class _Side(NamedTuple):
    key_M: NDArray[np.int64]
    """Feature times G plus place, ascending."""
    sum_M: FloatArray
    fired_M: NDArray[np.int64]


def prompt_features(
    index: FeatureIndex,
    sae: str,
    suite: str,
    prompt_G: NDArray[np.int64],
    features: Sequence[int] | None = None,
) -> PromptFeatures:
    """Return what all features did in these prompts, or only some features; prompts must ascend.

    Raises StoreError where the copy holds no such dictionary, suite or feature.
    """
    assert bool((np.diff(prompt_G) > 0).all()), "prompts must ascend"
    indptr_P1, counted_T = index.prompt_indptr(suite), index.counted(suite)
    place_T = np.full(len(counted_T), -1, dtype=np.int32)
    counted_G = np.zeros(len(prompt_G), dtype=np.int64)
    for place, prompt in enumerate(prompt_G.tolist()):
        part = slice(indptr_P1[prompt], indptr_P1[prompt + 1])
        place_T[part] = np.where(counted_T[part], place, -1)
        counted_G[place] = counted_T[part].sum()
    chosen = None if features is None else sorted(set(features))
    base, tuned = (_side(index, sae, suite, side, chosen, place_T, len(prompt_G)) for side in SIDES)
    key_N, base_M, tuned_M = _merged(base.key_M, tuned.key_M)
    feature_N, place_N = np.divmod(key_N, len(prompt_G))
    tokens_N = counted_G[place_N]
    columns = []
    for name in ("sum_M", "fired_M"):
        for side, at_M in ((base, base_M), (tuned, tuned_M)):
            column_N = np.zeros(len(key_N))
            column_N[at_M] = getattr(side, name)
            columns.append(column_N / tokens_N)
    return PromptFeatures(index.num_features(sae, suite), counted_G, feature_N, place_N, *columns)


def _side(
    index: FeatureIndex,
    sae: str,
    suite: str,
    side: str,
    features: Sequence[int] | None,
    place_T: NDArray[np.int32],
    num_places: int,
) -> _Side:
    """Sum one model's entries by feature and prompt; they come in that order, so each sum is over a run."""
    feature_K, token_K, value_K = index.entries(sae, suite, side, place_T >= 0, features)
    key_K = feature_K * num_places + place_T[token_K]
    if not len(key_K):
        return _Side(key_K, np.empty(0), key_K)
    starts_M = np.flatnonzero(np.concatenate([[True], key_K[1:] != key_K[:-1]]))
    sum_M = np.add.reduceat(value_K.astype(np.float64), starts_M)
    return _Side(key_K[starts_M], sum_M, np.diff(starts_M, append=len(key_K)))


def _merged(
    a_M: NDArray[np.int64], b_M: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the union of two ascending lists, ascending, and the place in it of each entry of either."""
    both = np.concatenate([a_M, b_M])
    # Stable sorting of two ascending runs is a merge.
    order = np.argsort(both, kind="stable")
    ordered = both[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(both)]
    place = np.empty(len(both), dtype=np.int64)
    place[order] = np.cumsum(first) - 1
    return ordered[first], place[: len(a_M)], place[len(a_M) :]
