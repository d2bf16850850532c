"""Which feature of one dictionary stands for a feature of another: the nearest decoder direction.

Shapes: N features asked about, F and G features of two dictionaries, W width of both, C features of a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.diff.chunks import in_chunks


@dataclass(frozen=True, slots=True)
class Matches:
    """The nearest feature of another dictionary to each feature asked about."""

    feature_N: NDArray[np.int64]
    match_N: NDArray[np.int64]
    cosine_N: NDArray[np.float64]
    mutual_N: NDArray[np.bool_]
    """Whether the feature is in turn the nearest one to its match, among all of its own dictionary."""


def match_features(
    features: Sequence[int], decoder_FW: NDArray[np.floating], other_GW: NDArray[np.floating]
) -> Matches:
    """Return for each feature of a dictionary the nearest one of another by the cosine of their decoders."""
    feature_N = np.asarray(features, dtype=np.int64)
    match_N, cosine_N = nearest(decoder_FW[feature_N], other_GW)
    back_N, _ = nearest(other_GW[match_N], decoder_FW)
    return Matches(feature_N, match_N, cosine_N, back_N == feature_N)


def nearest(
    query_NW: NDArray[np.floating], direction_FW: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the direction with the largest cosine to each query, the first of equals, and the cosine [N].

    Chunk by chunk: two dictionaries are never held against each other whole. A direction without length has
    cosine 0 to everything.
    """
    query_NW = _unit(query_NW.astype(np.float64))
    index_N = np.zeros(len(query_NW), dtype=np.int64)
    cosine_N = np.full(len(query_NW), -np.inf)
    start = 0
    for chunk_CW in in_chunks(direction_FW):
        cosine_NC = query_NW @ _unit(chunk_CW).T
        best_N = cosine_NC.argmax(1)
        found_N = cosine_NC[np.arange(len(best_N)), best_N]
        nearer_N = found_N > cosine_N
        index_N[nearer_N], cosine_N[nearer_N] = start + best_N[nearer_N], found_N[nearer_N]
        start += len(chunk_CW)
    return index_N, cosine_N


def _unit(x_NW: NDArray[np.float64]) -> NDArray[np.float64]:
    norm_N1 = np.linalg.norm(x_NW, axis=1, keepdims=True)
    return x_NW / np.where(norm_N1 > 0, norm_N1, 1.0)
