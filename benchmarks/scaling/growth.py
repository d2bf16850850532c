"""What a job costs as it grows: memory in processes of their own, time per token side by side."""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ft_audit.benchmarks.corpus_job import job_over
from ft_audit.benchmarks.harness import Measurement
from ft_audit.benchmarks.scaling.synthetic import Pool, job_over_pool, pool_workshop
from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.moments import group_moments
from ft_audit.engine.precompute.execute import LocalPlace
from ft_audit.engine.precompute.job import run_missing
from ft_audit.engine.precompute.passes import plan_passes
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.report import Speeds
from ft_audit.engine.precompute.spending import Spending
from ft_audit.engine.precompute.write_diff import write_diff

POOL_TOKENS = 32_768
WARM_TOKENS = 8_192


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one job over the pool: the loop over the batches, then the reduction of what it stored."""

    num_tokens: int
    loop: float
    reduction: float

    @property
    def microseconds(self) -> float:
        """Of the whole, a token pair."""
        return (self.loop + self.reduction) / self.num_tokens * 1e6


@dataclass(slots=True)
class Ground:
    """Where jobs over the pool are run: the job of the corpus, its dictionary loaded once."""

    job: Job
    pool: Pool
    place: LocalPlace
    prefetch: ThreadPoolExecutor

    def run(self, num_tokens: int, store: Path) -> Job:
        """Take so many tokens through the job's loop into the store."""
        job = job_over_pool(self.job, self.pool, num_tokens, store)
        workshop = pool_workshop(job, self.pool, self.prefetch)
        workshop._readers = self.place.workshop.readers if self.place.workshop is not None else None
        self.place.workshop = workshop
        with ExitStack() as stack:
            run_missing(job, plan_passes(job), self.place, Speeds(), False, stack)
        return job

    def cost(self, num_tokens: int, scratch: Path) -> Cost:
        """Return what so many tokens take; the store is thrown away."""
        started = time.perf_counter()
        job = self.run(num_tokens, scratch / "store")
        looped = time.perf_counter()
        reduce(job, self.place)
        ended = time.perf_counter()
        shutil.rmtree(scratch / "store")
        return Cost(job.suites.suites[0].num_tokens, looped - started, ended - looped)


def reduce(job: Job, place: LocalPlace) -> None:
    """Reduce the job's runs to every feature's moments by the suite's groups; assert that all is there."""
    (planned,) = plan_passes(job)
    base, tuned = (job.store.open_run(planned.runs[side].run_id) for side in ("base", "tuned"))
    found = group_moments(base, tuned, job.saes[0].spec.name, planned.groups, place.scheduler)
    assert found["all"].num_prompts == len(planned.suite.tokens.suite.prompts), "a prompt is missing"


@contextmanager
def open_ground(pool: Path, scratch: Path) -> Iterator[Ground]:
    """The ground over a pool's file, warmed up by a small job."""
    with open_scheduler() as threads, ThreadPoolExecutor(1) as prefetch:
        ground = Ground(
            job_over(scratch / "unused", weights=False),
            Pool.load(pool),
            LocalPlace(threads, prefetch),
            prefetch,
        )
        ground.cost(WARM_TOKENS, scratch)
        yield ground


def capture_pool(path: Path, num_tokens: int = POOL_TOKENS) -> float:
    """Write the pool's file with the real models; return how many features fire on a token of it."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_scheduler() as threads,
        ThreadPoolExecutor(1) as prefetch,
    ):
        job = job_over(Path(scratch) / "unused", weights=False)
        pool = Pool.capture(job, num_tokens)
        pool.save(path)
        ground = Ground(job, pool, LocalPlace(threads, prefetch), prefetch)
        checked = ground.run(min(num_tokens, WARM_TOKENS), Path(scratch) / "check")
        return _l0(checked)


def _l0(job: Job) -> float:
    (planned,) = plan_passes(job)
    run = job.store.open_run(planned.runs["tuned"].run_id)
    fired = run.dense(f"sae/{job.saes[0].spec.name}/fired_P").sum()
    return float(fired / run.dense("counted_P").sum())


def time_growth(ground: Ground, sizes: Sequence[int], rounds: int, scratch: Path) -> list[Measurement]:
    """Return time per token at each size; in every round the smallest runs before and after each other."""
    small, *larger = sorted(sizes)
    costs: dict[int, list[Cost]] = {size: [] for size in sizes}
    ratios: dict[int, list[float]] = {size: [] for size in larger}
    for _ in range(rounds):
        before = _few(ground, small, scratch)
        for size in larger:
            cost = ground.cost(size, scratch)
            after = _few(ground, small, scratch)
            beside = statistics.median(c.microseconds for c in (*before, *after))
            ratios[size].append(cost.microseconds / beside)
            costs[size].append(cost)
            costs[small] += before
            before = after
            print(f"{size} tokens: {cost} against {beside:.1f} us", file=sys.stderr, flush=True)
        costs[small] += before
    rates = [
        Measurement(f"growth/time_{size}", statistics.median(c.microseconds for c in costs[size]), "us/pair")
        for size in sorted(sizes)
    ]
    reduction = statistics.median(c.reduction / (c.loop + c.reduction) for c in costs[larger[-1]])
    return [
        Measurement("growth/time_per_token", statistics.median(ratios[larger[-1]]), "x"),
        *(
            Measurement(f"growth/time_per_token_{s}_vs_{small}", statistics.median(ratios[s]), "x")
            for s in larger[:-1]
        ),
        *rates,
        Measurement("growth/reduction_share", reduction, "ratio"),
    ]


def _few(ground: Ground, num_tokens: int, scratch: Path) -> list[Cost]:
    return [ground.cost(num_tokens, scratch) for _ in range(3)]


def memory_growth(pool: Path, sizes: Sequence[int]) -> list[Measurement]:
    """Return the peak memory of a process that runs the whole job, its diff included, over each size."""
    peaks = {size: peak_memory(pool, size) for size in sorted(sizes)}
    small, *_, large = peaks
    return [
        Measurement("growth/memory", peaks[large] / peaks[small], "x"),
        *(Measurement(f"growth/memory_{size}", peak / 1e6, "MB") for size, peak in peaks.items()),
    ]


def peak_memory(pool: Path, num_tokens: int) -> int:
    """Return the peak resident bytes of a fresh process that runs one job over so many tokens."""
    command = [sys.executable, "-m", "ft_audit.benchmarks.scaling.growth", str(pool), str(num_tokens)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"a job over {num_tokens} tokens failed: {done.stderr[-2000:]}"
    return int(done.stdout.splitlines()[-1])


def child(pool: Path, num_tokens: int) -> int:
    """Run the whole job and return the peak resident bytes of this process."""
    with tempfile.TemporaryDirectory() as name, open_ground(pool, Path(name)) as ground:
        job = ground.run(num_tokens, Path(name) / "store")
        write_diff(job, plan_passes(job), ground.place, Spending())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(child(Path(sys.argv[1]), int(sys.argv[2])))
