"""Writes the feature-major copy of a diff: for each feature, where it fired, sorted in bounded memory.

An external sort: each segment is sorted by feature into files on the local disk, then ranges of features with
about BUCKET_ENTRIES are merged over all segments. Memory holds a segment for each thread, later GROUP
buckets, and never less than one feature: 8 bytes for each token on which it fired.

Legend: T tokens, P prompts, F features, N non-zeros, K peaks kept a feature, S statistics of a feature.
"""

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler, open_scheduler
from ft_audit.engine.diff.align import shared_sae
from ft_audit.engine.diff.sorted_parts import SortedParts
from ft_audit.engine.diff.suite_tokens import SuiteRuns, SuiteTokens, put_suite_tokens, suite_tokens
from ft_audit.engine.store import DiffWriter, RunReader
from ft_audit.engine.store.feature_index_reader import feature_path, statistics_path
from ft_audit.kernels.feature_index import merge_parts, prompt_peaks, sort_by_feature

NUM_PEAKS = 32  # the contexts that are found without reading all of a feature
BUCKET_ENTRIES = 1 << 21
BUCKET_FEATURES = 1 << 15  # of features that hardly fire, the peaks would take more than the entries
GROUP = 8
ENTRY_CHUNK = 1 << 17
FEATURE_CHUNK = 1 << 15


def put_feature_index(
    writer: DiffWriter, pairs: Sequence[SuiteRuns], sae_names: Sequence[str], scheduler: Scheduler
) -> None:
    """Write each suite's tokens, and for each dictionary and side the tokens and values of every feature.

    An entry counts where its own run counts the token; the others are in the segments alone. The result does
    not depend on the order or size of the runs' segments. Raises StoreError when a pair's runs differ in
    prompts, tokens or dictionaries, or when the scratch disk is full.
    """
    with _this_machine(scheduler) as place:
        for pair in pairs:
            tokens = suite_tokens(pair, place)
            with tempfile.TemporaryDirectory(prefix="ft-audit-sort-") as scratch:
                put_suite_tokens(writer, pair, tokens, Path(scratch))
            for sae in sae_names:
                width = shared_sae(pair.base, pair.tuned, sae).width
                for side, run in (("base", pair.base), ("tuned", pair.tuned)):
                    sinks = _Sinks.open(writer, sae, pair.name, side, tokens)
                    _put_side(_Side(run, sae, width, tokens), sinks, place)


def put_feature_statistics(writer: DiffWriter, group: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a stats group's arrays [F] a second time, as float64 with one feature's values side by side.

    One feature's statistics are then a single read instead of one for each array.
    """
    names_S = sorted(arrays)
    value_FS = np.stack([np.asarray(arrays[name], dtype=np.float64) for name in names_S], axis=1)
    assert value_FS.ndim == 2, f"{group}: arrays must have one entry a feature"
    named = np.frombuffer("\n".join(names_S).encode(), dtype=np.uint8)
    for name, array in (("names", named), ("value_FS", value_FS.reshape(-1))):
        sink = writer.array_sink(statistics_path(group, name), array.dtype, FEATURE_CHUNK)
        sink.append(array)
        sink.close()


@contextmanager
def _this_machine(scheduler: Scheduler) -> Generator[Scheduler]:
    """Threads of this process: a cluster's workers may not see the files that the sort leaves on its disk."""
    if scheduler.name == "threads":
        yield scheduler
        return
    with open_scheduler() as threads:
        yield threads


@dataclass(frozen=True, slots=True)
class _Side:
    """One run's rows of one dictionary."""

    run: RunReader
    sae: str
    width: int
    tokens: SuiteTokens


@dataclass(frozen=True, slots=True)
class _SortSegment:
    """The task that sorts one segment into its files."""

    side: _Side
    parts: SortedParts

    def __call__(self, number: int) -> None:
        data = self.side.run.segment(number, saes=(self.side.sae,), dense=())
        indptr_T1, index_N, value_N = data.features[self.side.sae]
        token_T = self.side.tokens.numbers(data)
        counted_T = np.flatnonzero(data.mask_T)
        order_T = counted_T[np.argsort(token_T[counted_T])]
        ids_N = index_N.astype(np.int32, copy=False)
        part = sort_by_feature(indptr_T1, ids_N, value_N, order_T, token_T, self.side.width)
        self.parts.write(number, part)


class _Bucket(NamedTuple):
    token_N: NDArray[np.unsignedinteger[Any]]
    value_N: NDArray[np.uint16]
    peak_FK: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _MergeBucket:
    """The task that merges one range of features over all segments."""

    side: _Side
    parts: SortedParts
    edges: tuple[int, ...]

    def __call__(self, number: int) -> _Bucket:
        first, last = self.edges[number], self.edges[number + 1]
        segments = range(self.side.run.num_segments)
        merged = merge_parts([self.parts.read(segment, first, last) for segment in segments])
        peak_FK = prompt_peaks(merged, self.side.tokens.prompt_indptr_P1, NUM_PEAKS)
        return _Bucket(merged.token_N, merged.value_N, peak_FK)


class _Sinks(NamedTuple):
    """Where one side's arrays go."""

    feature_indptr_F1: Any
    token_N: Any
    value_N: Any
    peak_FK: Any

    @classmethod
    def open(cls, writer: DiffWriter, sae: str, suite: str, side: str, tokens: SuiteTokens) -> "_Sinks":
        def sink(name: str, dtype: Any, chunk_elements: int) -> Any:
            path = feature_path(sae, suite, side, name)
            return writer.array_sink(path, np.dtype(dtype), chunk_elements)

        return cls(
            sink("feature_indptr_F1", np.int64, FEATURE_CHUNK),
            sink("token_N", tokens.dtype, ENTRY_CHUNK),
            sink("value_N", np.uint16, ENTRY_CHUNK),
            sink("peak_FK", np.uint32, FEATURE_CHUNK),
        )


def _put_side(side: _Side, sinks: _Sinks, scheduler: Scheduler) -> None:
    with tempfile.TemporaryDirectory(prefix="ft-audit-sort-") as scratch:
        parts = SortedParts(Path(scratch), side.tokens.dtype)
        segments = range(side.run.num_segments)
        scheduler.map(_SortSegment(side, parts), segments)
        indptr_F1 = np.zeros(side.width + 1, dtype=np.int64)
        for segment in segments:
            indptr_F1 += parts.indptr(segment)
        sinks.feature_indptr_F1.append(indptr_F1)
        edges = bucket_edges(indptr_F1)
        task = _MergeBucket(side, parts, tuple(edges))
        numbers = range(len(edges) - 1)
        for start in range(0, len(numbers), GROUP):
            for bucket in scheduler.map(task, numbers[start : start + GROUP]):
                sinks.token_N.append(bucket.token_N)
                sinks.value_N.append(bucket.value_N)
                sinks.peak_FK.append(bucket.peak_FK.reshape(-1))
    for sink in sinks:
        sink.close()


def bucket_edges(
    indptr_F1: NDArray[np.int64], entries: int = BUCKET_ENTRIES, features: int = BUCKET_FEATURES
) -> list[int]:
    """Where ranges of features begin, and their end: each of at most so many entries, or of one feature."""
    num_features = len(indptr_F1) - 1
    edges = [0]
    while edges[-1] < num_features:
        first = edges[-1]
        fitting = int(np.searchsorted(indptr_F1, indptr_F1[first] + entries, side="right")) - 1
        edges.append(min(max(fitting, first + 1), first + features, num_features))
    return edges
