"""What one segment of a run holds: whole prompts, their tokens, their sparse features and dense evidence.

P prompts, T tokens, N non-zeros.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# (indptr_T1 int64, index_N int32 ascending within a row, value_N bfloat16 bits)
FeatureRows = tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.uint16]]


@dataclass(frozen=True, slots=True)
class SegmentData:
    """Whole prompts of one suite through one model; `mask_T` marks the tokens that statistics count."""

    prompt_P: NDArray[np.int64]
    prompt_indptr_P1: NDArray[np.int64]
    token_T: NDArray[np.int32]
    role_T: NDArray[np.uint8]
    mask_T: NDArray[np.bool_]
    features: Mapping[str, FeatureRows] = field(default_factory=dict)
    dense: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Named arrays with one row a prompt."""
    tokens: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Named arrays with one row a token."""
    stats: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Named arrays of any shape: sums over the segment, to be merged with other segments'."""

    @property
    def num_prompts(self) -> int:
        return int(self.prompt_P.shape[0])

    @property
    def num_tokens(self) -> int:
        return int(self.token_T.shape[0])

    def check(self) -> None:
        """Assert that shapes and row pointers agree; a segment that fails is the writer's mistake."""
        num_prompts, num_tokens = self.num_prompts, self.num_tokens
        _check_indptr("prompt_indptr_P1", self.prompt_indptr_P1, num_prompts, num_tokens)
        for name, array in (("role_T", self.role_T), ("mask_T", self.mask_T)):
            assert array.shape == (num_tokens,), f"{name}: {array.shape}, expected ({num_tokens},)"
        for sae, (indptr_T1, index_N, value_N) in self.features.items():
            _check_indptr(f"features of {sae}", indptr_T1, num_tokens, int(index_N.shape[0]))
            sizes = f"{index_N.shape} ids, {value_N.shape} values"
            assert index_N.shape == value_N.shape, f"features of {sae}: {sizes}"
            assert value_N.dtype == np.uint16, f"features of {sae}: {value_N.dtype}, not bfloat16 bits"
        for name, dense in self.dense.items():
            assert dense.shape[:1] == (num_prompts,), f"{name}: {dense.shape}, expected {num_prompts} rows"
        for name, rows in self.tokens.items():
            assert rows.shape[:1] == (num_tokens,), f"{name}: {rows.shape}, expected {num_tokens} rows"
        for name, kept in (*self.dense.items(), *self.tokens.items(), *self.stats.items()):
            assert kept.dtype.kind in "biuf", f"{name}: dtype {kept.dtype} cannot be stored"


def _check_indptr(name: str, indptr: NDArray[np.int64], num_rows: int, num_items: int) -> None:
    assert indptr.shape == (num_rows + 1,), f"{name}: {indptr.shape}, expected ({num_rows + 1},)"
    assert int(indptr[0]) == 0, f"{name}: starts at {indptr[0]}, not 0"
    assert int(indptr[-1]) == num_items, f"{name}: ends at {indptr[-1]}, not {num_items}"
    assert bool((np.diff(indptr) >= 0).all()), f"{name}: must not descend"
