"""Where the segments of a job are worked on: in this process, or by the workers of a cluster."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ft_audit.engine.cluster import Scheduler, local_cluster, open_scheduler
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.precompute.passes import Pass, Side, plan_passes
from ft_audit.engine.precompute.plan import Job, Machine, open_job
from ft_audit.engine.precompute.work import SegmentDone, SegmentWork, Workshop
from ft_audit.engine.store import SegmentEntry, SegmentSink
from ft_audit.errors import ConfigError

Answer = TypeVar("Answer")
Sinks = Mapping[tuple[str, Side], SegmentSink]
OnTokens = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Written:
    """One segment's work, done and on the store, though not yet in any manifest."""

    work: SegmentWork
    entries: dict[Side, SegmentEntry]
    num_tokens: int
    seconds: float
    clock: Clock
    write_seconds: float


class Place(Protocol):
    """Somewhere to work; everything it does is the same to the byte wherever it is."""

    scheduler: Scheduler
    """For reductions over stored segments."""

    def machine(self) -> Machine | None:
        """Return what of the place decides bytes; None for this process."""
        ...

    def prepare(self, job: Job, sides: Set[Side]) -> None:
        """Load what working on these sides needs, as far as that is done here."""
        ...

    def work(
        self,
        job: Job,
        passes: Sequence[Pass],
        works: Sequence[SegmentWork],
        sinks: Sinks,
        on_tokens: OnTokens,
    ) -> Iterator[Written]:
        """Yield every segment once it is written, in whatever order they are done."""
        ...

    def ask(self, job: Job, question: Callable[[Job], Answer]) -> Answer:
        """Return what a question to the loaded models gives."""
        ...


@contextmanager
def open_place(config: AuditConfig, address: str | None) -> Generator[Place]:
    """The cluster at the address, one of our own if the config asks for it, else this process.

    Raises ConfigError when no scheduler answers at the address.
    """
    if address is not None:
        with open_scheduler(address) as scheduler:
            yield ClusterPlace(PackedConfig.of(config), scheduler)
    elif config.cluster is not None:
        with local_cluster(config.cluster.workers, config.precompute.threads) as scheduler:
            yield ClusterPlace(PackedConfig.of(config), scheduler)
    else:
        with open_scheduler() as scheduler, ThreadPoolExecutor(1, "ft-audit-batches") as prefetch:
            place = LocalPlace(scheduler, prefetch)
            try:
                yield place
            finally:
                if place.workshop is not None:
                    place.workshop.close()


@dataclass(slots=True)
class LocalPlace:
    """This process; a segment is written while the next one is computed."""

    scheduler: Scheduler
    prefetch: ThreadPoolExecutor
    workshop: Workshop | None = None

    def machine(self) -> None:
        return None

    def prepare(self, job: Job, sides: Set[Side]) -> None:
        if job.config.precompute.runner == "hf":
            job.models.load(sides)

    def work(
        self,
        job: Job,
        passes: Sequence[Pass],
        works: Sequence[SegmentWork],
        sinks: Sinks,
        on_tokens: OnTokens,
    ) -> Iterator[Written]:
        self.workshop = self.workshop or Workshop(job, passes, self.prefetch)
        self.workshop.passes = passes
        with ThreadPoolExecutor(1, "ft-audit-write") as writer:
            writing: Future[Written] | None = None
            for work in works:
                done = self.workshop.do(work, on_tokens)
                if writing is not None:
                    # One segment behind at most: a slow disk must hold the models up, not fill the memory.
                    with done.clock.time("wait"):
                        written = writing.result()
                    yield written
                writing = writer.submit(write, done, sinks)
            if writing is not None:
                yield writing.result()

    def ask(self, job: Job, question: Callable[[Job], Answer]) -> Answer:
        return question(job)


@dataclass(slots=True)
class ClusterPlace:
    """The workers of a dask cluster, each of which opens the job once and keeps its models."""

    packed: "PackedConfig"
    scheduler: Scheduler

    def machine(self) -> Machine:
        return self.scheduler.ask(_Ask(self.packed, _machine_of))

    def prepare(self, job: Job, sides: Set[Side]) -> None:
        """Every worker loads what it needs with the first segment that it is given."""

    def work(
        self,
        job: Job,
        passes: Sequence[Pass],
        works: Sequence[SegmentWork],
        sinks: Sinks,
        on_tokens: OnTokens,
    ) -> Iterator[Written]:
        tokens = {p.name: segment_tokens(p) for p in passes}
        tasks = [
            RemoteWork(self.packed, work, {side: sinks[work.pass_name, side] for side in work.sides})
            for work in works
        ]
        for written in self.scheduler.as_completed(tasks):
            on_tokens(tokens[written.work.pass_name][written.work.number])
            yield written

    def ask(self, job: Job, question: Callable[[Job], Answer]) -> Answer:
        return self.scheduler.ask(_Ask(self.packed, question))


@dataclass(frozen=True, slots=True)
class PackedConfig:
    """A config on its way to a worker, where its paths must mean the same."""

    json: str
    base_dir: str

    @classmethod
    def of(cls, config: AuditConfig) -> "PackedConfig":
        """Pack a config."""
        return cls(config.model_dump_json(), str(config.base_dir))

    def unpack(self) -> AuditConfig:
        """Return the config."""
        config = AuditConfig.model_validate_json(self.json)
        config._base_dir = Path(self.base_dir)
        return config


@dataclass(frozen=True, slots=True)
class _Ask(Generic[Answer]):
    """A task that puts a question to a worker's job."""

    packed: PackedConfig
    question: Callable[[Job], Answer]

    def __call__(self) -> Answer:
        with _ONE_AT_A_TIME:
            return self.question(_opened(self.packed).job)


def _machine_of(job: Job) -> Machine:
    return job.machine


@dataclass(frozen=True, slots=True)
class RemoteWork:
    """A task that works on one segment and writes it straight to the store."""

    packed: PackedConfig
    work: SegmentWork
    sinks: dict[Side, SegmentSink]

    def __call__(self) -> Written:
        with _ONE_AT_A_TIME:
            workshop = _opened(self.packed)
            asked = {side: sink.run_id for side, sink in self.sinks.items()}
            if _planned_runs(workshop, self.work) != asked:
                # First work here, or the store has learnt of smaller batches. Planning reads the whole suite.
                workshop.passes = plan_passes(workshop.job)
                _check_same(_planned_runs(workshop, self.work), asked, workshop.job)
            done = workshop.do(self.work)
        # Outside of the lock: a worker with a second thread computes on while this one writes.
        return write(done, {(self.work.pass_name, side): sink for side, sink in self.sinks.items()})


# A model runs one batch at a time, however many threads a worker has.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=1)
def _opened(packed: PackedConfig) -> Workshop:
    job = open_job(packed.unpack())
    return Workshop(job, [], ThreadPoolExecutor(1, "ft-audit-batches"))


def _planned_runs(workshop: Workshop, work: SegmentWork) -> dict[Side, str]:
    """Return the ids of the runs that the workshop would make of the work's sides."""
    planned = next((p for p in workshop.passes if p.name == work.pass_name), None)
    return {} if planned is None else {side: planned.runs[side].run_id for side in work.sides}


def _check_same(ours: dict[Side, str], asked: dict[Side, str], job: Job) -> None:
    differing = [run_id for side, run_id in asked.items() if ours.get(side) != run_id]
    if differing:
        raise ConfigError(
            f"cluster: this worker ({job.machine.device_class}) would not give the bytes of run "
            f"{differing[0]}: all workers need the same processors, thread counts and library versions, and "
            "the same files"
        )


def write(done: SegmentDone, sinks: Sinks) -> Written:
    """Write what each run keeps of a segment; its manifests follow."""
    started = time.perf_counter()
    work = done.work
    entries = {side: sinks[work.pass_name, side].write(work.number, data) for side, data in done.data.items()}
    seconds = time.perf_counter() - started
    return Written(work, entries, done.num_tokens, done.seconds, done.clock, seconds)


def segment_tokens(planned: Pass) -> list[int]:
    """Return how many real tokens each segment of a pass has."""
    lengths = planned.suite.tokens.length_P
    return [sum(int(lengths[list(b.prompts)].sum()) for b in batches) for batches in planned.plan.segments]
