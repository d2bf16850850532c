"""How each training row moves each feature: the paired mean activation difference, row by feature.

Legend: R rows (prompts of the suite), F features, N non-zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ft_audit.engine.cluster import Scheduler, scheduler_or_threads
from ft_audit.engine.diff.align import RunPair, pair_runs, paired_segment, shared_sae
from ft_audit.engine.diff.segment_rows import ragged_take
from ft_audit.engine.store import RunReader
from ft_audit.kernels.diff_stats import prompt_differences


class _SegmentDifferences(NamedTuple):
    prompt_P: NDArray[np.int64]
    indptr_P1: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _SegmentTask:
    pair: RunPair
    sae_name: str

    def __call__(self, number: int) -> _SegmentDifferences:
        segment = paired_segment(self.pair, self.sae_name, number)
        found = prompt_differences(segment.rows)
        return _moved(segment.prompt_P, *found)


def row_features(
    base: RunReader, tuned: RunReader, sae_name: str, scheduler: Scheduler | None = None
) -> csr_array:
    """Mean activation over each row's counted tokens, tuned minus base, float32 CSR [R, F] in suite order.

    Row r is the prompt with suite index r; R is the highest index plus one, and rows that the runs do not
    hold are empty. Raises StoreError when prompts, tokens or dictionaries differ between the runs.
    """
    num_features = shared_sae(base, tuned, sae_name).width
    with scheduler_or_threads(scheduler) as opened:
        pair = pair_runs(base, tuned, opened)
        parts = opened.map(_SegmentTask(pair, sae_name), pair.segment_numbers)
    return _in_suite_order(parts, num_features)


def stored_row_features(pair: RunReader, sae_name: str, num_features: int) -> csr_array:
    """The same from a pair's run that kept each prompt's differences instead of the features."""
    names = [f"rows/{sae_name}/{name}" for name in ("indptr_P1", "index_N", "value_N")]
    parts = []
    for segment in pair.segments(saes=(), dense=(), stats=names):
        indptr_P1, index_N, value_N = (segment.stats[name] for name in names)
        parts.append(_moved(segment.prompt_P, indptr_P1, index_N, value_N))
    return _in_suite_order(parts, num_features)


def _moved(
    prompt_P: NDArray[np.int64], indptr_P1: NDArray[Any], index_N: NDArray[Any], value_N: NDArray[Any]
) -> _SegmentDifferences:
    """Leave out what moved nowhere: it is most of what fired."""
    moved_N = value_N != 0
    kept_P1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(moved_N)])[indptr_P1]
    return _SegmentDifferences(prompt_P, kept_P1, index_N[moved_N], value_N[moved_N].astype(np.float32))


def _in_suite_order(parts: Sequence[_SegmentDifferences], num_features: int) -> csr_array:
    prompt_P = np.concatenate([part.prompt_P for part in parts])
    lengths_P = np.concatenate([np.diff(part.indptr_P1) for part in parts])
    order_P = np.argsort(prompt_P, kind="stable")
    indptr_P1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths_P)])
    _, entries = ragged_take(indptr_P1, order_P)
    lengths_R = np.zeros(int(prompt_P.max()) + 1, dtype=np.int64)
    lengths_R[prompt_P] = lengths_P
    indptr_R1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths_R)])
    value_N = np.concatenate([part.value_N for part in parts])[entries]
    index_N = np.concatenate([part.index_N for part in parts])[entries]
    return csr_array((value_N, index_N, indptr_R1), shape=(len(lengths_R), num_features))
