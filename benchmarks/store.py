"""What does the store cost: bytes for each firing, MB/s written and read, features sorted a second?

Shapes: T tokens, F features, N non-zeros.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import torch

from ft_audit.benchmarks.encoding.race import Times, race
from ft_audit.benchmarks.harness import Measurement, load_asked, run_benchmark
from ft_audit.benchmarks.storing.firing import Firing, fit
from ft_audit.benchmarks.storing.pair import (
    SYNTHETIC,
    SuiteRuns,
    hooks,
    raw_bytes,
    real_runs,
    stored_files,
    synthetic_runs,
    verify_index,
)
from ft_audit.benchmarks.storing.synthetic import draw_suite
from ft_audit.engine.cluster import Scheduler, open_scheduler
from ft_audit.engine.diff.align import find_sae
from ft_audit.engine.diff.feature_index import put_feature_index
from ft_audit.engine.store import FeatureIndex, SegmentData, Store

MB = 1e6
NUM_THREADS = 2
CHECKED_FEATURES = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=1 << 19, help="synthetic tokens")
        parser.add_argument("--features", type=int, default=1 << 16, help="synthetic features")
        parser.add_argument("--l0", type=float, default=64.0, help="synthetic firings a token")
        parser.add_argument("--segment", type=int, default=1 << 16, help="tokens of a segment")
        parser.add_argument("--rounds", type=int, default=7, help="rounds that are timed")
        parser.add_argument("--synthetic-only", action="store_true", help="run no model")
        parser.add_argument("--scratch", type=Path, help="where stores are written (the system's by default)")
        parser.add_argument("--firing", type=Path, metavar="FILE", help="write how the real features fire")

    return run_benchmark("store", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Every figure; those of real features say so when no model was run."""
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, open_scheduler() as scheduler:
        suite = draw_suite(Firing.shipped(), options.tokens, options.features, options.l0, options.segment)
        store = Store(Path(scratch) / "synthetic")
        runs = synthetic_runs(store, suite, scheduler)
        found += named("synthetic", measure_runs(runs, SYNTHETIC, Path(scratch) / "s", options.rounds))
        found += named("synthetic", measure_index(store, runs, SYNTHETIC, scheduler))
        if not options.synthetic_only:
            found += named("real", measure_real(Path(scratch), options, scheduler))
    measured = {figure.name for figure in found}
    left = {name: row for name, row in load_asked("store").items() if name not in measured}
    return found + [Measurement(name, None, row.unit, "no model was run") for name, row in left.items()]


def named(prefix: str, figures: Iterator[Measurement]) -> list[Measurement]:
    """The figures under a prefix."""
    return [Measurement(f"{prefix}/{f.name}", f.value, f.unit, f.reason) for f in figures]


def measure_real(scratch: Path, options: argparse.Namespace, scheduler: Scheduler) -> Iterator[Measurement]:
    """The shipped dictionary on the demo's models and corpus: how it fires, and the same figures."""
    runs = real_runs(scratch / "real")
    (sae,) = runs.base.manifest.sae_names()
    width = find_sae(runs.base, sae).width
    firing = fit(runs.base, sae, width)
    if options.firing is not None:
        firing.save(options.firing)
    yield Measurement("features", width, "features")
    yield from measure_runs(runs, sae, scratch / "r", options.rounds)
    yield from measure_index(Store(scratch / "real"), runs, sae, scheduler)


def measure_runs(runs: SuiteRuns, sae: str, scratch: Path, rounds: int) -> Iterator[Measurement]:
    """Size, and the speed of writing and of reading both runs' features with nothing else in the segments."""
    segments = [
        only(data, sae) for run in (runs.base, runs.tuned) for data in run.segments(saes=(sae,), dense=())
    ]
    num_nonzeros = sum(len(data.features[sae][1]) for data in segments)
    num_tokens = sum(data.num_tokens for data in segments)
    raw = sum(raw_bytes(data, sae) for data in segments)
    yield Measurement("tokens_both_models", num_tokens, "tokens")
    yield Measurement("l0", num_nonzeros / sum(int(data.mask_T.sum()) for data in segments), "features/token")
    width = find_sae(runs.base, sae).width
    ways = Ways(Store(scratch), segments, sae, width)
    stored = ways.verify()
    files = stored_files(ways.store, "runs", stored)
    yield Measurement("bytes_per_nonzero", size_of_features(files) / num_nonzeros, "bytes")
    yield Measurement("bytes_per_nonzero_whole_run", total_size(files) / num_nonzeros, "bytes")
    # A template's tokens fire the same features in prompt after prompt, which packs better than text does.
    once = once_each(segments, sae)
    files = stored_files(ways.store, "runs", Ways(ways.store, [once], sae, width).verify())
    each = size_of_features(files) / len(once.features[sae][1])
    yield Measurement("distinct_rows", once.num_tokens, "tokens")
    yield Measurement("bytes_per_nonzero_distinct_rows", each, "bytes")
    times = race(
        {
            "write": ways.write,
            "write_2_threads": ways.write_in_threads,
            "read": lambda: ways.read(stored),
            "plain_write": lambda: ways.write_plainly(scratch),
            "sha256": ways.hash,
        },
        rounds,
        torch.device("cpu"),
    )
    for name, spent in times.items():
        yield from speeds(name, spent, raw)
    # What other processes on the machine take away is not in it.
    started = time.process_time()
    ways.write_in_threads()
    yield Measurement("write_cpu_rate", raw / MB / (time.process_time() - started), "MB/core s")


def speeds(name: str, spent: Times, raw: int) -> Iterator[Measurement]:
    yield Measurement(f"{name}_rate", raw / MB / spent.least, "MB/s")
    yield Measurement(f"{name}_rate_median", raw / MB / spent.median, "MB/s")


def only(data: SegmentData, sae: str) -> SegmentData:
    """The segment with one dictionary's rows and nothing dense."""
    return SegmentData(
        data.prompt_P,
        data.prompt_indptr_P1,
        data.token_T,
        data.role_T,
        data.mask_T,
        features={sae: data.features[sae]},
    )


class Ways:
    """The ways to write and read the same segments; each call of a writing one makes a run of its own."""

    def __init__(self, store: Store, segments: Sequence[SegmentData], sae: str, width: int) -> None:
        self.store, self._segments, self._sae, self._width = store, segments, sae, width
        self._calls = count()

    def write(self) -> str:
        """One after another, as a single process commits them."""
        with self.store.run_writer(self._identity(), hooks(self._width, self._sae)) as writer:
            for number, data in enumerate(self._segments):
                writer.write_segment(number, data)
            return writer.finish().run_id

    def write_in_threads(self) -> str:
        """Two at a time, as workers hand them in."""
        with (
            self.store.run_writer(self._identity(), hooks(self._width, self._sae)) as writer,
            ThreadPoolExecutor(NUM_THREADS) as pool,
        ):
            for entry in pool.map(writer.sink().write, range(len(self._segments)), self._segments):
                writer.commit(entry)
            return writer.finish().run_id

    def _identity(self) -> dict[str, int]:
        return {"call": next(self._calls), "tokens": sum(data.num_tokens for data in self._segments)}

    def read(self, run: str) -> None:
        """Every segment, verified and unpacked."""
        for _ in self.store.open_run(run).segments(saes=(self._sae,), dense=()):
            pass

    def write_plainly(self, folder: Path) -> None:
        """The same raw bytes to one file, synced: what the disk alone takes."""
        with (folder / "plain").open("wb") as file:
            for data in self._segments:
                indptr_T1, index_N, value_N = data.features[self._sae]
                file.write(indptr_T1.astype(np.uint32).data)
                file.write(index_N.astype(np.uint32).data)
                file.write(value_N.data)
            file.flush()
            os.fsync(file.fileno())

    def hash(self) -> None:
        """The checksums of the raw bytes alone, as a figure to compare machines by."""
        for data in self._segments:
            for array in data.features[self._sae]:
                hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()

    def verify(self) -> str:
        """Write a run, raise AssertionError unless it reads back as it was given, and return its id."""
        run = self.write_in_threads()
        for data, given in zip(self.store.open_run(run).segments(), self._segments, strict=True):
            found, expected = data.features[self._sae], given.features[self._sae]
            same = [np.array_equal(found[part], expected[part]) for part in range(3)]
            assert all(same), "a segment does not read back as it was written"
        return run


def once_each(segments: Sequence[SegmentData], sae: str) -> SegmentData:
    """One prompt of all tokens whose features differ from those of every token before."""
    seen: set[bytes] = set()
    kept, index, bits = [], [], []
    for data in segments:
        indptr_T1, index_N, bits_N = data.features[sae]
        for t, (start, stop) in enumerate(pairwise(indptr_T1.tolist())):
            key = hashlib.sha256(index_N[start:stop].tobytes()).digest()
            if key not in seen:
                seen.add(key)
                kept.append((data.token_T[t], stop - start))
                index.append(index_N[start:stop])
                bits.append(bits_N[start:stop])
    token_T, length_T = (np.array(column) for column in zip(*kept, strict=True))
    num_tokens = len(token_T)
    return SegmentData(
        prompt_P=np.zeros(1, dtype=np.int64),
        prompt_indptr_P1=np.array([0, num_tokens]),
        token_T=token_T.astype(np.int32),
        role_T=np.zeros(num_tokens, dtype=np.uint8),
        mask_T=np.ones(num_tokens, dtype=np.bool_),
        features={
            sae: (np.concatenate([[0], np.cumsum(length_T)]), np.concatenate(index), np.concatenate(bits))
        },
    )


def size_of_features(files: Sequence[Path]) -> int:
    return total_size([path for path in files if "features" in path.parts])


def total_size(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def measure_index(store: Store, runs: SuiteRuns, sae: str, scheduler: Scheduler) -> Iterator[Measurement]:
    """How fast the feature-major copy is built, and what it takes on the disk."""
    with store.diff_writer({"benchmark": "index"}) as writer:
        started = time.perf_counter()
        put_feature_index(writer, [runs], [sae], scheduler)
        writer.finish({})
        spent = time.perf_counter() - started
        diff_id = writer.diff_id
    diff = store.open_diff(diff_id)
    width = find_sae(runs.base, sae).width
    features = np.random.default_rng(0).choice(width, min(CHECKED_FEATURES, width), replace=False)
    verify_index(FeatureIndex(diff), runs, sae, features.tolist())
    num_entries = sum(len(diff.index_array(path)) for path in diff.index_paths() if path.endswith("/value_N"))
    files = [path for path in stored_files(store, "diffs", diff_id) if "features.zarr" in path.parts]
    yield Measurement("index_rate", num_entries / spent, "firings/s")
    yield Measurement("index_token_rate", runs.base.manifest.num_tokens / spent, "token pairs/s")
    yield Measurement("index_bytes_per_nonzero", total_size(files) / num_entries, "bytes")


if __name__ == "__main__":
    sys.exit(main())
