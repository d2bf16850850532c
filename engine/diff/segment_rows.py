"""One segment's tokens and the sparse features of one dictionary, ready for the diff kernels.

Legend: P prompts, T tokens, N non-zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store import RunReader, decode_bf16
from ft_audit.kernels.diff_stats import SideRows


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """Whole prompts, their tokens, and the features that one dictionary fired on them."""

    prompt_P: NDArray[np.int64]
    prompt_indptr_P1: NDArray[np.int64]
    token_T: NDArray[np.int32]
    role_T: NDArray[np.uint8]
    mask_T: NDArray[np.bool_]
    features: SideRows

    def take(self, positions: NDArray[np.int64]) -> "SegmentRows":
        """The prompts at these positions of the segment, in this order."""
        prompt_indptr_P1, tokens = ragged_take(self.prompt_indptr_P1, positions)
        indptr_T1, entries = ragged_take(self.features.indptr_T1, tokens)
        return SegmentRows(
            prompt_P=self.prompt_P[positions],
            prompt_indptr_P1=prompt_indptr_P1,
            token_T=self.token_T[tokens],
            role_T=self.role_T[tokens],
            mask_T=self.mask_T[tokens],
            features=SideRows(indptr_T1, self.features.index_N[entries], self.features.value_N[entries]),
        )


def read_rows(run: RunReader, sae_name: str, number: int) -> SegmentRows:
    """One stored segment with the rows of one dictionary, values widened from bfloat16 to float32."""
    data = run.segment(number, saes=(sae_name,), dense=())
    indptr_T1, index_N, bits_N = data.features[sae_name]
    return SegmentRows(
        prompt_P=data.prompt_P,
        prompt_indptr_P1=data.prompt_indptr_P1,
        token_T=data.token_T,
        role_T=data.role_T,
        mask_T=data.mask_T,
        features=SideRows(indptr_T1, index_N.astype(np.int32, copy=False), decode_bf16(bits_N)),
    )


def join(parts: Sequence[SegmentRows]) -> SegmentRows:
    """The parts one after another."""
    assert parts, "nothing to join"
    return SegmentRows(
        prompt_P=np.concatenate([part.prompt_P for part in parts]),
        prompt_indptr_P1=_join_indptr([part.prompt_indptr_P1 for part in parts]),
        token_T=np.concatenate([part.token_T for part in parts]),
        role_T=np.concatenate([part.role_T for part in parts]),
        mask_T=np.concatenate([part.mask_T for part in parts]),
        features=SideRows(
            _join_indptr([part.features.indptr_T1 for part in parts]),
            np.concatenate([part.features.index_N for part in parts]),
            np.concatenate([part.features.value_N for part in parts]),
        ),
    )


def ragged_take(
    indptr: NDArray[np.int64], positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row pointer of the picked rows, and the index of each of their items in the old order."""
    starts, lengths = indptr[positions], np.diff(indptr)[positions]
    picked = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
    items = np.arange(picked[-1], dtype=np.int64) + np.repeat(starts - picked[:-1], lengths)
    return picked, items


def _join_indptr(indptrs: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(indptr) for indptr in indptrs])
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
