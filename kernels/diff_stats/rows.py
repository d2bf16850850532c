"""What the diff kernels read: one segment's sparse rows of both models over the same tokens.

Legend: T tokens, P prompts, F features, N non-zeros.
"""

from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True, slots=True)
class PairRows:
    """Both models' rows over the same tokens, and which tokens belong to which prompt and count."""

    base: SideRows
    tuned: SideRows
    prompt_indptr_P1: NDArray[np.int64]
    mask_T: NDArray[np.bool_]
    num_features: int

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
