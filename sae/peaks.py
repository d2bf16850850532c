"""Owns where features fire hardest: a few tokens each, of different prompts, gathered chunk by chunk.

Legend of shapes: n tokens of a chunk, N non-zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.kernels.sparse_rows import SparseRows

PEAK = np.dtype([("feature", np.int32), ("prompt", np.int64), ("token", np.int64), ("value", np.float32)])


@dataclass(frozen=True, slots=True)
class Peak:
    """The token of a prompt on which a feature fires hardest."""

    prompt: int
    token: int
    activation: float


class Peaks:
    """The `per_feature` prompts on which each feature fires hardest; memory does not grow with the tokens."""

    def __init__(self, num_features: int, per_feature: int) -> None:
        self.num_features, self.per_feature = num_features, per_feature
        self._kept = np.empty(0, PEAK)

    def add(self, rows: SparseRows, prompt_n: NDArray[np.int64], token_n: NDArray[np.int64]) -> None:
        """Add a chunk's features; `prompt_n` and `token_n` name its rows. A prompt may span chunks."""
        assert rows.num_features == self.num_features and rows.num_rows == len(prompt_n) == len(token_n)
        row_N = np.repeat(np.arange(rows.num_rows), np.diff(rows.indptr_T1.cpu().numpy()))
        found = np.empty(len(row_N), PEAK)
        found["feature"] = rows.index_N.cpu().numpy()
        found["prompt"], found["token"] = prompt_n[row_N], token_n[row_N]
        found["value"] = rows.value_N.float().cpu().numpy()
        self._kept = self._best(np.concatenate([self._kept, found]))

    def of(self, feature: int) -> list[Peak]:
        """The feature's peaks, the hardest first."""
        kept = self._kept[self._kept["feature"] == feature]
        return [Peak(int(p["prompt"]), int(p["token"]), float(p["value"])) for p in kept]

    def _best(self, found: NDArray[np.void]) -> NDArray[np.void]:
        """The hardest token of each feature and prompt, and of these the hardest of each feature."""
        order = np.lexsort((found["token"], -found["value"], found["prompt"], found["feature"]))
        found = found[order]
        first = np.ones(len(found), dtype=np.bool_)
        first[1:] = (np.diff(found["feature"]) != 0) | (np.diff(found["prompt"]) != 0)
        found = found[first]
        found = found[np.lexsort((found["token"], -found["value"], found["feature"]))]
        starts = np.searchsorted(found["feature"], np.arange(self.num_features))
        rank = np.arange(len(found)) - starts[found["feature"]]
        kept: NDArray[np.void] = found[rank < self.per_feature]
        return kept
