"""How long does a question about one feature take, from a store of millions of tokens?

A synthetic suite is drawn whose features fire as the shipped dictionary's do on real text (see
`storing/firing.py`), both runs and their diff are written, and then features are asked for one at a time.
`warm`: one reader answers all. `reopened`: each question opens the diff anew, as a new process does once it
has started. `cold`: as well, with the diff's files dropped from the system's cache, where a process can do
that; what the disk then takes for one small file stands beside it.

With `--tools` every tool of the agent that only reads is asked too, over the same store; `--quick` is for
trying this out, at a size that says nothing.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.benchmarks.storing.firing import Firing
from ft_audit.benchmarks.storing.pair import SYNTHETIC, SuiteRuns, stored_files, synthetic_runs, verify_index
from ft_audit.benchmarks.storing.synthetic import draw_suite
from ft_audit.benchmarks.storing.tool_evidence import put_tool_evidence
from ft_audit.benchmarks.storing.tool_times import time_tools
from ft_audit.engine.cluster import Scheduler, open_scheduler
from ft_audit.engine.diff.feature_index import put_feature_index, put_feature_statistics
from ft_audit.engine.diff.feature_tests import feature_tests
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.diff.parts import SuiteFeatures
from ft_audit.engine.store import FeatureIndex, Store

MS = 1e3
NUM_LEADING = 50
QUICK = {"tokens": 100_000, "features": 4_096, "segment": 1 << 14, "queries": 40, "cold": 5}


@dataclass(frozen=True, slots=True)
class Case:
    """A written diff and the features that are asked for."""

    store: Store
    diff_id: str
    suite: str
    features: dict[str, list[int]]  # kind of feature -> features, in the order they are asked for

    @property
    def group(self) -> str:
        return f"features/{SYNTHETIC}/{self.suite}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=5_000_000, help="tokens of the suite")
        parser.add_argument("--features", type=int, default=1 << 16, help="features of the dictionary")
        parser.add_argument("--l0", type=float, default=64.0, help="firings a counted token")
        parser.add_argument("--segment", type=int, default=1 << 16, help="tokens of a segment")
        parser.add_argument("--queries", type=int, default=1000, help="warm questions of each kind")
        parser.add_argument("--cold", type=int, default=100, help="questions of each kind that open the diff")
        parser.add_argument("--tools", action="store_true", help="ask the agent's tools too")
        parser.add_argument("--quick", action="store_true", help="a small store and few questions")
        parser.add_argument("--scratch", type=Path, help="where the store is written: some 5 GB by default")

    return run_benchmark("query", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Write the store, check its answers, and time them."""
    if options.quick:
        options = argparse.Namespace(**{**vars(options), **QUICK})
    suite = draw_suite(Firing.shipped(), options.tokens, options.features, options.l0, options.segment)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, open_scheduler() as scheduler:
        store, started = Store(scratch), time.perf_counter()
        runs = synthetic_runs(store, suite, scheduler)
        say(f"runs written after {time.perf_counter() - started:.0f} s")
        case, num_entries = write_diff(store, runs, scheduler, options.queries, with_tools=options.tools)
        say(f"diff written after {time.perf_counter() - started:.0f} s")
        verify(case, runs)
        say("answers checked")
        found = [
            Measurement("tokens", suite.num_tokens, "tokens"),
            Measurement("features", options.features, "features"),
            Measurement("firings_both_models", num_entries, "firings"),
        ]
        for kind in case.features:
            found += ask(case, kind, options.queries, options.cold)
        found += percentiles("disk/cold_file", cold_files(case, options.cold))
        if options.tools:
            mixed = [f for some in case.features.values() for f in some[: options.queries]]
            found += time_tools(store, case.diff_id, case.suite, mixed, options.queries)
        else:
            found.append(Measurement("tools/slowest_p99", None, "ms", "asked for with --tools alone"))
    return found


def write_diff(
    store: Store, runs: SuiteRuns, scheduler: Scheduler, num_features: int, *, with_tools: bool = False
) -> tuple[Case, int]:
    """Write the diff's statistics and its feature-major copy, and choose what is asked."""
    moments = pair_moments(runs.base, runs.tuned, SYNTHETIC, scheduler=scheduler)
    arrays = {**moments.arrays(), **feature_tests(moments)}
    with store.diff_writer({"benchmark": "query"}) as writer:
        group = f"features/{SYNTHETIC}/{runs.name}"
        writer.put_stats(group, arrays)
        put_feature_statistics(writer, group, arrays)
        put_feature_index(writer, [runs], [SYNTHETIC], scheduler)
        width = len(moments.fired_base)
        summary = put_tool_evidence(store, writer, runs, width) if with_tools else {}
        diff_id = writer.finish(summary).diff_id
    fired = np.flatnonzero(moments.fired_base + moments.fired_tuned)
    drawn = np.random.default_rng(0).choice(fired, num_features)
    most = np.argsort(-(moments.fired_base + moments.fired_tuned), kind="stable")[:NUM_LEADING]
    features = {
        "random": drawn.tolist(),
        "leading": SuiteFeatures(SYNTHETIC, runs.name, arrays).leading(NUM_LEADING),
        "densest": most.tolist(),
    }
    assert all(features.values()), "no feature leads"
    num_entries = int(moments.fired_base.sum() + moments.fired_tuned.sum())
    return Case(store, diff_id, runs.name, features), num_entries


def verify(case: Case, runs: SuiteRuns) -> None:
    """Raise AssertionError unless statistics are the stored arrays' and contexts those of the segments."""
    diff = case.store.open_diff(case.diff_id)
    index, arrays = FeatureIndex(diff), diff.stats(case.group)
    for features in case.features.values():
        for feature in features[:NUM_LEADING]:
            for name, value in index.statistics(case.group, feature).items():
                assert np.array_equal(value, float(arrays[name][feature]), equal_nan=True), (feature, name)
    verify_index(index, runs, SYNTHETIC, [feature for some in case.features.values() for feature in some[:8]])


def ask(case: Case, kind: str, num_warm: int, num_cold: int) -> Iterator[Measurement]:
    """Time both questions about features of one kind, warm and cold."""
    features = np.resize(case.features[kind], max(num_warm, num_cold)).tolist()
    questions: dict[str, Callable[[FeatureIndex, int], object]] = {
        "statistics": lambda index, feature: index.statistics(case.group, feature),
        "contexts": lambda index, feature: index.top_contexts(
            SYNTHETIC, case.suite, ("base", "tuned")[feature % 2], feature
        ),
    }
    for name, question in questions.items():
        index = FeatureIndex(case.store.open_diff(case.diff_id))
        ask_anew(case, question, features[0])
        warm = [timed(question, index, feature) for feature in features[:num_warm]]
        reopened = [timed(ask_anew, case, question, feature) for feature in features[:num_cold]]
        cold = []
        for feature in features[:num_cold]:
            drop_cached(case)
            cold.append(timed(ask_anew, case, question, feature))
        for mode, spent in (("warm", warm), ("reopened", reopened), ("cold", cold)):
            yield from percentiles(f"{name}/{kind}/{mode}", spent)
        say(f"{name} of {kind} features timed")


def ask_anew(case: Case, question: Callable[[FeatureIndex, int], object], feature: int) -> None:
    """Open the diff and ask it one question."""
    question(FeatureIndex(case.store.open_diff(case.diff_id)), feature)


class Spent(NamedTuple):
    """Milliseconds of one call: by the clock, and of processors, to which other programs do not add."""

    clock: float
    processor: float


def timed(call: Callable[..., object], *arguments: object) -> Spent:
    """What one call takes."""
    started, processor = time.perf_counter(), time.process_time()
    call(*arguments)
    return Spent(MS * (time.perf_counter() - started), MS * (time.process_time() - processor))


def percentiles(name: str, spent: Sequence[Spent]) -> Iterator[Measurement]:
    for percent in (50, 99):
        clock, processor = np.percentile(spent, percent, axis=0).tolist()
        yield Measurement(f"{name}_p{percent}", clock, "ms")
        yield Measurement(f"{name}_cpu_p{percent}", processor, "ms")


def drop_cached(case: Case) -> None:
    """Ask the system to forget the diff's files; where it has no such call, they stay in its cache."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in stored_files(case.store, "diffs", case.diff_id):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def cold_files(case: Case, number: int) -> list[Spent]:
    """The time to read one small file of the diff that the system does not have in its cache."""
    small = [path for path in stored_files(case.store, "diffs", case.diff_id) if path.name == "zarr.json"]
    drop_cached(case)
    return [timed(path.read_bytes) for path in small[:number]]


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
