"""The precompute verb: both models over every suite into the store, then the diff."""

import contextlib
import logging
import sys
import time
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.precompute.execute import Place, Written, open_place, segment_tokens
from ft_audit.engine.precompute.passes import Pass, PlannedRun, Side, diff_id, plan_passes
from ft_audit.engine.precompute.plan import Job, open_job
from ft_audit.engine.precompute.report import Speeds, report
from ft_audit.engine.precompute.spending import Spending
from ft_audit.engine.precompute.work import BatchTooLargeError, SegmentWork
from ft_audit.engine.precompute.write_diff import write_diff
from ft_audit.engine.store import RunWriter
from ft_audit.engine.store.manifest import DamagedManifestError
from ft_audit.errors import ModelError

log = logging.getLogger(__name__)
RunKey = tuple[str, Side]


def run_precompute(
    config: AuditConfig, *, progress: bool = True, scheduler: str | None = None
) -> dict[str, Any]:
    """Run what the store does not hold yet and return the ids, speeds and sizes of the job.

    Safe to kill and call again: finished segments stay, and the bytes come out the same. What is damaged is
    made again, segment by segment.

    Raises:
        ConfigError, DataError, ModelError, SaeError, StoreError: before anything is written, unless the
            store itself fails.
    """
    started = time.perf_counter()
    speeds, spending = Speeds(), Spending()
    # A cluster that does not answer is a mistake to report before the models run, not after.
    with open_place(config, scheduler) as place:
        with spending.part("texts"):
            job = open_job(config, place.machine())
        with spending.part("forward"):
            passes = _run_all(job, place, speeds, progress)
        reused = not speeds.num_tokens and _diff_is_whole(job, passes)
        if not reused:
            with spending.part("statistics"):
                write_diff(job, passes, place, spending)
    said = report(job, passes, speeds, time.perf_counter() - started, reused)
    if not reused:
        ledger = spending.ledger(job.machine.device_class, said["tokens"], speeds.num_tokens)
        job.store.put_ledger(said["diff_id"], ledger)
    return said


def _run_all(job: Job, place: Place, speeds: Speeds, progress: bool) -> list[Pass]:
    """Bring every run of the job to its end and return the passes as they were run."""
    while True:
        passes = plan_passes(job)
        try:
            with ExitStack() as stack:
                run_missing(job, passes, place, speeds, progress, stack)
            return passes
        except BatchTooLargeError as error:
            _go_smaller(job, passes, error)


def run_missing(
    job: Job, passes: list[Pass], place: Place, speeds: Speeds, progress: bool, stack: ExitStack
) -> None:
    """Work on every segment that a run of the passes lacks, and commit each as it is done.

    Raises:
        BatchTooLargeError: a batch did not fit into memory; what was committed stays.
    """
    writers = _open_writers(job, passes, place, stack, progress)
    works = _works(passes, writers)
    if not works:
        return
    sinks = {key: writer.sink() for key, writer in writers.items()}
    tokens = {p.name: segment_tokens(p) for p in passes}
    total = sum(tokens[work.pass_name][work.number] for work in works)
    left = {key: len(segments_of(passes, key[0])) - len(w.committed) for key, w in writers.items()}
    with tqdm(total=total, unit="tok", unit_scale=True, disable=not progress, file=sys.stderr) as bar:
        for written in place.work(job, passes, works, sinks, bar.update):
            bar.set_description(written.work.pass_name)
            speeds.add(written)
            _commit(written, writers, left)


def segments_of(passes: list[Pass], name: str) -> range:
    """Return the numbers of a pass's segments."""
    return range(len(next(p for p in passes if p.name == name).plan.segments))


def _commit(written: Written, writers: dict[RunKey, RunWriter], left: dict[RunKey, int]) -> None:
    for side, entry in written.entries.items():
        key = (written.work.pass_name, side)
        writers[key].commit(entry)
        left[key] -= 1
        if not left[key]:
            writers[key].finish()


def _open_writers(
    job: Job, passes: list[Pass], place: Place, stack: ExitStack, progress: bool
) -> dict[RunKey, RunWriter]:
    """Lock every run that lacks a segment, having dropped those that are damaged."""
    runs = {(p.name, side): run for p in passes for side, run in p.runs.items()}
    damage = _damaged(job, runs, progress)
    lacking = {key: run for key, run in runs.items() if damage[key] or not job.store.has_run(run.run_id)}
    # A model that cannot be read is a mistake to report before anything is written.
    place.prepare(job, {side for _, side in lacking})
    writers: dict[RunKey, RunWriter] = {}
    for key, run in lacking.items():
        writer = stack.enter_context(job.store.run_writer(run.identity, list(run.hooks)))
        if damage[key]:
            log.warning("run %s: segments %s are damaged and made again", run.run_id, sorted(damage[key]))
            writer.drop(damage[key])
        writers[key] = writer
        if len(writer.committed) == len(run.plan.segments):
            writer.finish()
    return writers


def _damaged(job: Job, runs: dict[RunKey, PlannedRun], progress: bool) -> dict[RunKey, set[int]]:
    """Return which committed segments of each run are not what was committed, having read all of them."""
    found: dict[RunKey, set[int]] = {}
    stored = set(job.store.runs())
    with tqdm(
        runs.items(), desc="verify", unit="run", disable=not progress, leave=False, file=sys.stderr
    ) as bar:
        for key, run in bar:
            found[key] = set()
            if run.run_id in stored:
                # A manifest that is damaged itself is mended by the run's writer.
                with contextlib.suppress(DamagedManifestError):
                    damage = job.store.open_run(run.run_id, allow_incomplete=True).damaged()
                    found[key] = {d.number for d in damage if d.number is not None}
    return found


def _works(passes: list[Pass], writers: dict[RunKey, RunWriter]) -> list[SegmentWork]:
    works = []
    for planned in passes:
        for number in range(len(planned.plan.segments)):
            lacking: frozenset[Side] = frozenset(
                side
                for side in planned.runs
                if (planned.name, side) in writers and number not in writers[planned.name, side].committed
            )
            if lacking:
                works.append(SegmentWork(planned.name, number, lacking))
    return works


def _go_smaller(job: Job, passes: list[Pass], error: BatchTooLargeError) -> None:
    """Keep smaller batches in the place of those of a pass that did not fit, for every job that plans it."""
    planned = next(p for p in passes if p.name == error.pass_name)
    smaller = planned.tokens_per_batch // 2
    longest = int(planned.suite.tokens.length_P.max())
    # The longest prompt makes a batch of its own, whatever the budget.
    if planned.tokens_per_batch <= longest:
        raise ModelError(
            f"suite {planned.suite.name!r}: a single prompt of {longest} tokens does not fit into memory "
            f"({error.reason}); lower precompute.max_prompt_tokens, or run on a device with more memory"
        ) from error
    log.warning(
        "%s: a batch of %d tokens does not fit into memory (%s); going on with %d",
        planned.name, planned.tokens_per_batch, error.reason, smaller,
    )  # fmt: skip
    for run in planned.runs.values():
        if not job.store.has_run(run.run_id):
            with job.store.run_writer(run.identity, list(run.hooks)) as writer:
                writer.supersede({"tokens_per_batch": smaller})


def _diff_is_whole(job: Job, passes: list[Pass]) -> bool:
    name = diff_id(job, passes)
    return job.store.has_diff(name) and not job.store.open_diff(name).damaged()
