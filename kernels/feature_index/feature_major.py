"""Owns FeatureMajor: for each feature the tokens on which it fired and how strongly, in CSC form.

Legend: T tokens, N non-zeros, F features, P prompts, K peaks kept a feature.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_PEAK = np.uint32(0xFFFFFFFF)  # fills the row of a feature that fired in fewer than K prompts
# A token number shares 64 bits with the 16 of a value while parts are merged.
MAX_TOKENS = 1 << 48


class FeatureMajor(NamedTuple):
    """Feature f owns entries [indptr[f], indptr[f + 1]), its tokens strictly ascending."""

    indptr_F1: NDArray[np.int64]
    token_N: NDArray[np.unsignedinteger]
    value_N: NDArray[np.uint16]  # bits of non-negative bfloat16

    @property
    def num_features(self) -> int:
        return len(self.indptr_F1) - 1

    def slice(self, first: int, last: int) -> "FeatureMajor":
        """The features [first, last), as views."""
        start, stop = int(self.indptr_F1[first]), int(self.indptr_F1[last])
        return FeatureMajor(
            self.indptr_F1[first : last + 1] - start, self.token_N[start:stop], self.value_N[start:stop]
        )


def check_rows(
    indptr_T1: NDArray[np.int64], index_N: NDArray[np.int32], value_N: NDArray[np.uint16], num_features: int
) -> None:
    """Assert what the compiled loops rely on; they index without looking."""
    assert index_N.shape == value_N.shape == (int(indptr_T1[-1]),), (index_N.shape, value_N.shape)
    assert value_N.dtype == np.uint16, value_N.dtype
    assert int(value_N.max(initial=0)) < 0x8000, "activations are non-negative"
    assert int(index_N.min(initial=0)) >= 0, "a feature number is negative"
    assert int(index_N.max(initial=-1)) < num_features, f"a feature lies outside width {num_features}"
