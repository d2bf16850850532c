"""The features whose decoder directions point most nearly the same way, found without all pairs in memory.

Legend of shapes: A features asked for, F features, C features of a chunk, K neighbours, O decoder width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ASKED_AT_ONCE = 1024
CHUNK_FEATURES = 1 << 14


class Neighbors(NamedTuple):
    """One feature's neighbours, the nearest first, equal cosines by index."""

    feature: int
    index_K: Tensor
    cosine_K: Tensor


def nearest_neighbors(
    w_dec_FO: Tensor,
    features: Sequence[int],
    search_k: int = 200,
    min_cos: float = 0.15,
    chunk_features: int = CHUNK_FEATURES,
) -> Iterator[Neighbors]:
    """Yield for each feature, in the order asked, the `search_k` others of highest cosine, from `min_cos` on.

    At most ASKED_AT_ONCE x `chunk_features` cosines are held at a time. A direction of length 0 is nobody's
    neighbour. In float32, on the device of `w_dec_FO`.
    """
    width = w_dec_FO.shape[0]
    assert all(0 <= feature < width for feature in features), f"features outside 0 to {width - 1}"
    for start in range(0, len(features), ASKED_AT_ONCE):
        asked_A = torch.as_tensor(features[start : start + ASKED_AT_ONCE], device=w_dec_FO.device)
        index_AK, cosine_AK = _search(w_dec_FO, asked_A, search_k, chunk_features)
        for feature, index_K, cosine_K in zip(asked_A.tolist(), index_AK.cpu(), cosine_AK.cpu(), strict=True):
            near_K = cosine_K >= min_cos
            yield Neighbors(feature, index_K[near_K], cosine_K[near_K])


def _search(w_dec_FO: Tensor, asked_A: Tensor, k: int, chunk_features: int) -> tuple[Tensor, Tensor]:
    width, num_asked = w_dec_FO.shape[0], asked_A.shape[0]
    asked_AO = _unit(w_dec_FO[asked_A])
    best_AK = asked_AO.new_full((num_asked, 0), -2.0)
    index_AK = asked_A.new_empty((num_asked, 0))
    for start in range(0, width, chunk_features):
        stop = min(start + chunk_features, width)
        cosine_AC = asked_AO @ _unit(w_dec_FO[start:stop]).T
        inside_A = (asked_A >= start) & (asked_A < stop)
        cosine_AC[inside_A, asked_A[inside_A] - start] = -2.0  # itself
        number_C = torch.arange(start, stop, device=asked_A.device).expand(num_asked, -1)
        best_AK = torch.cat([best_AK, cosine_AC], 1)
        index_AK = torch.cat([index_AK, number_C], 1)
        # Sorted whole and stably, so that of equal cosines the lower index stays.
        order_AK = best_AK.argsort(dim=1, descending=True, stable=True)[:, :k]
        best_AK, index_AK = best_AK.gather(1, order_AK), index_AK.gather(1, order_AK)
    return index_AK, best_AK


def _unit(w_CO: Tensor) -> Tensor:
    return torch.nn.functional.normalize(w_CO.float(), dim=1)
