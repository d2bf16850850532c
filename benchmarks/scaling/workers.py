"""A job on workers of one core each: two against one, the bytes of all, and what a killed worker costs."""

import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ft_audit.benchmarks.corpus_job import CORPUS, job_over
from ft_audit.benchmarks.faults import committed, files_of
from ft_audit.benchmarks.harness import Measurement
from ft_audit.engine.cluster import Scheduler, local_cluster, open_scheduler
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.precompute.execute import (
    Answer,
    ClusterPlace,
    LocalPlace,
    OnTokens,
    PackedConfig,
    Place,
    Sinks,
    Written,
)
from ft_audit.engine.precompute.job import run_missing
from ft_audit.engine.precompute.passes import Pass, Side, plan_passes
from ft_audit.engine.precompute.plan import Job, Machine, open_job
from ft_audit.engine.precompute.report import Speeds
from ft_audit.engine.precompute.work import SegmentWork
from ft_audit.engine.suites.load import load_suite

KILL_AFTER = 0.4  # of the segments, one worker is killed


@dataclass(frozen=True, slots=True)
class Load:
    """The job that is spread: so many prompts of the corpus, in segments small enough to share out evenly."""

    num_prompts: int = 400
    tokens_per_segment: int = 1024
    rounds: int = 3


@dataclass(slots=True)
class KillingPlace:
    """A cluster one of whose workers is killed with SIGKILL once enough of the work is committed."""

    place: ClusterPlace
    store: Path
    scheduler: Scheduler
    known: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What was committed at the kill, with what tells its files from new ones."""

    def machine(self) -> Machine:
        """Return what of the cluster decides bytes."""
        return self.place.machine()

    def prepare(self, job: Job, sides: Set[Side]) -> None:
        """Leave it to the workers."""

    def ask(self, job: Job, question: Callable[[Job], Answer]) -> Answer:
        """Ask the cluster."""
        return self.place.ask(job, question)

    def work(
        self,
        job: Job,
        passes: Sequence[Pass],
        works: Sequence[SegmentWork],
        sinks: Sinks,
        on_tokens: OnTokens,
    ) -> Iterator[Written]:
        """Yield what the cluster yields; the kill falls between two segments' commits."""
        for number, written in enumerate(self.place.work(job, passes, works, sinks, on_tokens)):
            if number == int(KILL_AFTER * len(works)):
                self.known = committed(self.store)
                assert self.scheduler.client is not None, "a cluster has one"
                os.kill(min(self.scheduler.client.run(os.getpid).values()), signal.SIGKILL)
            yield written


def write_suite(path: Path, num_prompts: int) -> None:
    """Write every k-th prompt of the corpus as chats, so many as are asked for."""
    prompts = load_suite(CORPUS, path.parent).prompts
    chosen = prompts[:: max(1, len(prompts) // num_prompts)][:num_prompts]
    rows = [{"messages": [{"role": m.role, "content": m.content} for m in p.messages or ()]} for p in chosen]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(job: Job, place: Place, store: Path) -> float:
    """Run the job into an emptied store and return the seconds it took, committing included."""
    shutil.rmtree(store, ignore_errors=True)
    started = time.perf_counter()
    with ExitStack() as stack:
        run_missing(job, plan_passes(job), place, Speeds(), False, stack)
    return time.perf_counter() - started


@contextmanager
def cluster(config: AuditConfig, num_workers: int) -> Iterator[ClusterPlace]:
    """Workers of one core each; with as many cores as workers at least, each has a core of its own."""
    with local_cluster(num_workers, threads=1) as scheduler:
        assert scheduler.client is not None, "a cluster has one"
        cores = sorted(os.sched_getaffinity(0))
        for number, worker in enumerate(scheduler.client.scheduler_info()["workers"]):
            scheduler.client.run(pin, cores[number % len(cores)], workers=[worker])
        yield ClusterPlace(PackedConfig.of(config), scheduler)


def pin(core: int) -> None:
    """Keep this process, with all the threads that it has and will have, on one core."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def measure_workers(scratch: Path, load: Load) -> list[Measurement]:
    """Check the bytes of one process, one worker, two workers and a killed one; return two against one."""
    write_suite(scratch / "corpus.jsonl", load.num_prompts)
    store = scratch / "store"
    demo = job_over(store, threads=1, tokens_per_segment=load.tokens_per_segment, weights=False).config
    config = demo.model_copy(update={"suites": (str(scratch / "corpus.jsonl"),)})
    expected = _in_one_process(config, store)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        places = {number: stack.enter_context(cluster(config, number)) for number in seconds}
        jobs = {number: open_job(config, place.machine()) for number, place in places.items()}
        for number, place in places.items():
            # Every worker has loaded its models when this is done.
            run(jobs[number], place, store)
            check(store, expected)
        for _ in range(load.rounds):
            for number, place in places.items():
                seconds[number].append(run(jobs[number], place, store))
                check(store, expected)
            print(f"seconds by workers: {seconds}", file=sys.stderr, flush=True)
        killing = KillingPlace(places[2], store, places[2].scheduler)
        killed = run(jobs[2], killing, store)
    check(store, expected)
    kept = committed(store)
    again = [name for name, file in killing.known.items() if kept[name] != file]
    assert killing.known and not again, f"written again after the kill: {again}"
    one, two = (statistics.median(seconds[number]) for number in (1, 2))
    ratios = [first / second for first, second in zip(seconds[1], seconds[2], strict=True)]
    num_tokens = jobs[1].suites.suites[0].num_tokens
    return [
        Measurement("workers/two_workers_vs_one", statistics.median(ratios), "x"),
        Measurement("workers/one_worker_rate", 2 * num_tokens / one, "tokens/s"),
        Measurement("workers/two_workers_rate", 2 * num_tokens / two, "tokens/s"),
        Measurement("workers/two_workers_seconds", two, "s"),
        Measurement("workers/segments_of_the_job", len(kept) / 3, "segments"),
        Measurement("workers/segments_committed_at_the_kill", len(killing.known) / 3, "segments"),
        Measurement("workers/killed_worker_extra", killed - two, "s"),
    ]


def _in_one_process(config: AuditConfig, store: Path) -> dict[str, bytes]:
    """Return every file that the job leaves when this process alone works on it."""
    with open_scheduler() as threads, ThreadPoolExecutor(1) as prefetch:
        run(open_job(config), LocalPlace(threads, prefetch), store)
    return files_of(store)


def check(store: Path, expected: dict[str, bytes]) -> None:
    """Raise unless the store holds these files and bytes."""
    found = files_of(store)
    differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    assert not differing, f"other bytes than in one process: {differing[:3]}"
