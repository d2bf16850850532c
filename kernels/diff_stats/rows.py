"""What the diff kernels read: one segment's sparse rows of both models over the same tokens.

Legend: T tokens, P prompts, F features, N non-zeros, G groups of prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray


class SideRows(NamedTuple):
    """One model's feature rows: row t holds `index_N[indptr_T1[t]:indptr_T1[t + 1]]`, strictly ascending.

    A named tuple and not a dataclass, because compiled functions take one whole.
    """

    indptr_T1: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.float32]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order."""
        return cls(
            join_pointers([part.indptr_T1 for part in parts]),
            np.concatenate([part.index_N for part in parts]),
            np.concatenate([part.value_N for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class PairRows:
    """Both models' rows over the same tokens, and which tokens belong to which prompt and count."""

    base: SideRows
    tuned: SideRows
    prompt_indptr_P1: NDArray[np.int64]
    mask_T: NDArray[np.bool_]
    num_features: int

    @classmethod
    def nothing(cls, num_features: int) -> Self:
        """No prompts and no tokens."""
        pointers = np.zeros(1, dtype=np.int64)
        side = SideRows(pointers, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
        return cls(side, side, pointers, np.empty(0, dtype=np.bool_), num_features)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The prompts of all parts, in order; raises AssertionError if they disagree on `num_features`."""
        assert len({part.num_features for part in parts}) == 1
        return cls(
            SideRows.concatenate([part.base for part in parts]),
            SideRows.concatenate([part.tuned for part in parts]),
            join_pointers([part.prompt_indptr_P1 for part in parts]),
            np.concatenate([part.mask_T for part in parts]),
            parts[0].num_features,
        )

    def check(self) -> None:
        """Assert that the arrays fit together; compiled code would write out of bounds where they do not."""
        num_tokens = len(self.mask_T)
        prompts = self.prompt_indptr_P1
        assert self.mask_T.dtype == np.bool_, self.mask_T.dtype
        assert prompts.dtype == np.int64 and len(prompts) >= 1, (prompts.dtype, len(prompts))
        assert prompts[0] == 0 and prompts[-1] == num_tokens, "prompts do not cover the tokens"
        assert bool(np.all(np.diff(prompts) >= 0)), "prompt pointers descend"
        for name, side in (("base", self.base), ("tuned", self.tuned)):
            assert side.indptr_T1.dtype == np.int64, (name, side.indptr_T1.dtype)
            assert side.index_N.dtype == np.int32, (name, side.index_N.dtype)
            assert side.value_N.dtype == np.float32, (name, side.value_N.dtype)
            assert len(side.indptr_T1) == num_tokens + 1, (name, len(side.indptr_T1), num_tokens)
            assert len(side.index_N) == len(side.value_N), (name, len(side.index_N), len(side.value_N))
            assert rows_hold(side, self.num_features), f"{name}: rows malformed"

    def check_groups(self, groups_GP: NDArray[np.bool_]) -> None:
        """Assert that every group says of each prompt whether it holds it."""
        num_prompts = len(self.prompt_indptr_P1) - 1
        assert groups_GP.dtype == np.bool_, groups_GP.dtype
        assert groups_GP.ndim == 2 and groups_GP.shape[1] == num_prompts, (groups_GP.shape, num_prompts)


def join_pointers(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The row pointers of parts laid one after another."""
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


@njit(cache=True, nogil=True)
def rows_hold(side: SideRows, num_features: int) -> bool:
    """Whether the pointers ascend within bounds and every row's features do, below `num_features`."""
    indptr_T1, index_N = side.indptr_T1, side.index_N
    if indptr_T1[0] != 0 or indptr_T1[-1] != len(index_N):
        return False
    for t in range(len(indptr_T1) - 1):
        if indptr_T1[t + 1] < indptr_T1[t] or indptr_T1[t + 1] > len(index_N):
            return False
        previous = -1
        for i in range(indptr_T1[t], indptr_T1[t + 1]):
            if index_N[i] <= previous or index_N[i] >= num_features:
                return False
            previous = index_N[i]
    return True
