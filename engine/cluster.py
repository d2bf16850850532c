"""Where reductions over stored segments run: threads of this process, or a dask cluster elsewhere.

One task a segment, results merged by a tree whose shape depends on the number of segments alone; so threads,
processes and machines give the same bits.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dask import config as dask_config
from dask.base import compute
from dask.delayed import delayed
from distributed import Client, Nanny, SpecCluster, as_completed
from distributed import scheduler as dask_scheduler
from distributed.comm import resolve_address

from ft_audit.engine.machine import usable_cores
from ft_audit.errors import ConfigError

Result = TypeVar("Result")

# What glibc reads when a worker starts. dask would have it give every large array back at once, and getting
# their pages anew takes a reduction as long as its arithmetic; one arena for all threads keeps little.
KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Scheduler:
    """An open place to run tasks; `compute` takes dask collections and returns their values in order."""

    name: str
    compute: Callable[..., tuple[Any, ...]]
    client: Client | None = None
    """The cluster's, where there is one."""

    def ask(self, question: Callable[[], Result]) -> Result:
        """Return what a task gives on any one worker of the cluster."""
        assert self.client is not None, "there is no worker to ask"
        result: Result = self.client.submit(question, pure=False).result()
        return result

    def as_completed(self, tasks: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """Yield what each task gives as soon as it is done; a worker that dies costs what it was at."""
        assert self.client is not None, "there is no cluster to work on"
        futures = [self.client.submit(_run, task, pure=False) for task in tasks]
        try:
            for future in as_completed(futures, loop=self.client.loop):
                yield future.result()
                # What the cluster holds of it may go.
                future.release()
        finally:
            self.client.cancel(futures)

    def map(self, task: Callable[[int], Result], numbers: Sequence[int]) -> list[Result]:
        """Return `task(n)` for every number, in the order of the numbers."""
        return list(self.compute(*_tasks(task, numbers)))

    def map_reduce(
        self,
        task: Callable[[int], Result],
        numbers: Sequence[int],
        merge: Callable[[Result, Result], Result],
    ) -> Result:
        """Return the results of `task(n)` merged pairwise, neighbours first; `numbers` must not be empty."""
        assert numbers, "nothing to reduce"
        parts = _tasks(task, numbers)
        delayed_merge = delayed(merge, pure=False)
        while len(parts) > 1:
            merged = [
                delayed_merge(left, right) for left, right in zip(parts[::2], parts[1::2], strict=False)
            ]
            parts = merged + parts[2 * len(merged) :]
        result: Result = self.compute(parts[0])[0]
        return result


@contextmanager
def open_scheduler(
    address: str | None = None, num_threads: int | None = None, connect_seconds: float = 15.0
) -> Generator[Scheduler]:
    """Threads of this process (default), or the dask scheduler at the address; closed when the block ends.

    Raises ConfigError when no scheduler answers at the address.
    """
    if address is None:
        with ThreadPoolExecutor(num_threads or os.cpu_count(), thread_name_prefix="ft-audit-reduce") as pool:
            yield Scheduler("threads", partial(compute, scheduler="threads", pool=pool))
        return
    with _connect(address, connect_seconds) as client:
        yield Scheduler(address, partial(compute, scheduler=client), client)


@contextmanager
def local_cluster(num_workers: int, threads: int | None = None) -> Generator[Scheduler]:
    """So many worker processes on this machine, stopped when the block ends: one a GPU, or sharing the cores.

    Each has `threads` processor threads for its arithmetic, by default its share of the cores.
    """
    threads = threads or max(1, usable_cores() // num_workers)
    # One thread computes while the other writes; memory is the models', so dask must not watch over it.
    options = {"nthreads": 2, "memory_limit": 0, "env": {}}
    workers = {
        number: {"cls": Nanny, "options": {**options, "env": worker_environment(number, threads)}}
        for number in range(num_workers)
    }
    # Without an address of its own the HTTP server would look for the usual port, and find it taken.
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}
    scheduler = {"cls": dask_scheduler.Scheduler, "options": quiet}
    with (
        dask_config.set({"distributed.nanny.pre-spawn-environ": KEEP_PAGES}),
        SpecCluster(workers, scheduler) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Scheduler(cluster.scheduler_address, partial(compute, scheduler=client), client)


def worker_environment(number: int, threads: int) -> dict[str, str]:
    """Return what a worker process of this machine starts with: its share of threads, and its own GPU."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)] if visible else str(number)
    return environment


@contextmanager
def scheduler_or_threads(scheduler: Scheduler | None) -> Generator[Scheduler]:
    """The scheduler as given, left open; or threads of this process, closed when the block ends."""
    if scheduler is not None:
        yield scheduler
        return
    with open_scheduler() as threads:
        yield threads


def _tasks(task: Callable[[int], Result], numbers: Sequence[int]) -> list[Any]:
    # The task is one node that the others depend on, so a cluster ships it once and not with each number;
    # pure=False takes keys from a counter instead of hashing what the task carries.
    shared = delayed(task, pure=False, traverse=False)
    run = delayed(_call, pure=False)
    return [run(shared, number) for number in numbers]


def _run(task: Callable[[], Result]) -> Result:
    return task()


def _call(task: Callable[[int], Result], number: int) -> Result:
    return task(number)


def _connect(address: str, connect_seconds: float) -> Client:
    try:
        # A client that fails on the address itself is left half open and hangs when it is collected.
        resolve_address(address)
        return Client(address, timeout=connect_seconds, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler answers at {address!r} ({error}): start one with `dask scheduler`, give its "
            "address as tcp://HOST:PORT, or leave --scheduler out to use this machine's threads"
        ) from None
