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
from ft_audit.engine.store.feature_index_reader import feature_folder, statistics_path
from ft_audit.kernels.feature_index import merge_parts, prompt_peaks, sort_by_feature

NUM_PEAKS = 32  # the contexts that are found without reading all of a feature
BUCKET_ENTRIES = 1 << 21
BUCKET_FEATURES = 1 << 15  # of features that hardly fire, the peaks would take more than the entries
GROUP = 8
FEATURE_CHUNK = 1 << 13
# Chunks of entries: small ones are read faster, but each is a file.
SMALLEST_CHUNK, LARGEST_CHUNK = 1 << 16, 1 << 20
CHUNKS_AN_ARRAY = 1 << 11


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
                    folder = feature_folder(sae, pair.name, side)
                    _put_side(writer, _Side(run, sae, width, tokens), folder, place)


def put_feature_statistics(writer: DiffWriter, group: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a stats group's arrays [F] a second time, as float64 with one feature's entries side by side.

    One feature's statistics are then a single read instead of one for each array. `arrays` must be those that
    `put_stats` is given for the group: their names stand there alone.
    """
    value_FS = np.stack([np.asarray(arrays[name], dtype=np.float64) for name in sorted(arrays)], axis=1)
    assert value_FS.ndim == 2, f"{group}: arrays must have one entry a feature"
    sink = writer.array_sink(statistics_path(group), np.float64, FEATURE_CHUNK)
    sink.append(value_FS.reshape(-1))
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


def _put_side(writer: DiffWriter, side: _Side, folder: str, scheduler: Scheduler) -> None:
    with tempfile.TemporaryDirectory(prefix="ft-audit-sort-") as scratch:
        parts = SortedParts(Path(scratch), side.tokens.dtype)
        segments = range(side.run.num_segments)
        scheduler.map(_SortSegment(side, parts), segments)
        indptr_F1 = np.zeros(side.width + 1, dtype=np.int64)
        for segment in segments:
            indptr_F1 += parts.indptr(segment)
        edges = bucket_edges(indptr_F1)
        chunk = entry_chunk(int(indptr_F1[-1]))
        indptr, peaks = (
            writer.array_sink(f"{folder}/{name}", dtype, FEATURE_CHUNK)
            for name, dtype in (("feature_indptr_F1", np.int64), ("peak_FK", np.uint32))
        )
        tokens = writer.array_sink(f"{folder}/token_N", side.tokens.dtype, chunk)
        values = writer.array_sink(f"{folder}/value_N", np.uint16, chunk)
        indptr.append(indptr_F1)
        task, numbers = _MergeBucket(side, parts, tuple(edges)), range(len(edges) - 1)
        for start in range(0, len(numbers), GROUP):
            for bucket in scheduler.map(task, numbers[start : start + GROUP]):
                tokens.append(bucket.token_N)
                values.append(bucket.value_N)
                peaks.append(bucket.peak_FK.reshape(-1))
        for sink in (indptr, peaks, tokens, values):
            sink.close()


def entry_chunk(num_entries: int) -> int:
    """How many entries of tokens and values are stored together: a power of two."""
    fitting = 1 << max(num_entries // CHUNKS_AN_ARRAY, 1).bit_length()
    return min(max(fitting, SMALLEST_CHUNK), LARGEST_CHUNK)


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
