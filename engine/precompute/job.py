"""The precompute verb: both models over every suite into the store, then the diff."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ft_audit.engine.cluster import Scheduler, open_scheduler
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.diff.assemble import DiffInputs, assemble
from ft_audit.engine.diff.parts import SuitePair
from ft_audit.engine.precompute.answers import answer_divergence
from ft_audit.engine.precompute.generations import put_generations
from ft_audit.engine.precompute.observe import Reader
from ft_audit.engine.precompute.plan import Job, PlannedRun, diff_identity, open_job, plan_runs
from ft_audit.engine.precompute.report import Speeds, report, summary
from ft_audit.engine.precompute.run_suite import run_suite
from ft_audit.engine.store import content_id
from ft_audit.kernels.jumprelu import Encoder


def run_precompute(
    config: AuditConfig, *, progress: bool = True, scheduler: str | None = None
) -> dict[str, Any]:
    """Run what the store does not hold yet and return the ids, speeds and sizes of the job.

    Safe to kill and call again: finished segments stay, and the bytes come out the same.

    Raises:
        ConfigError, DataError, ModelError, SaeError, StoreError: before anything is written, unless the
            store itself is damaged.
    """
    started = time.perf_counter()
    job = open_job(config)
    planned = plan_runs(job)
    identity = diff_identity(job, planned)
    speeds = Speeds()
    reused = job.store.has_diff(content_id(identity)) and all(job.store.has_run(r.run_id) for r in planned)
    if not reused:
        # A cluster that does not answer is a mistake to report before the models run, not after.
        with open_scheduler(scheduler) as opened:
            _run_all(job, planned, speeds, progress)
            _write_diff(job, planned, identity, opened)
    return report(job, planned, content_id(identity), speeds, time.perf_counter() - started, reused)


def _run_all(job: Job, planned: list[PlannedRun], speeds: Speeds, progress: bool) -> None:
    missing = [run for run in planned if not job.store.has_run(run.run_id)]
    total = sum(run.suite.num_tokens for run in missing)
    device = job.models.device
    readers = [Reader(s.to(device), Encoder(s.weights(device), job.backend)) for s in job.saes]
    layers = [hook.layer for hook in job.hooks]
    pad = job.models.base_tokenizer.pad_token_id or 0
    job.models.load(run.side for run in missing)
    with tqdm(total=total, unit="tok", unit_scale=True, disable=not progress, file=sys.stderr) as bar:
        for run in missing:
            bar.set_description(f"{run.side} {run.suite.name}")
            with (
                _side_model(job, run.side) as model,
                job.store.run_writer(run.identity, list(job.hooks)) as writer,
            ):
                speed = run_suite(
                    writer,
                    model,
                    layers,
                    readers,
                    run.suite.tokens,
                    run.plan,
                    int(pad),
                    to_the_end=run.suite.to_the_end,
                    on_tokens=bar.update,
                )
            speeds.runs.setdefault(run.side, []).append(speed)
    speeds.encoders = {reader.sae.spec.name: reader.encoder.describe() for reader in readers}


@contextmanager
def _side_model(job: Job, side: str) -> Iterator[Any]:
    if side == "tuned":
        yield job.models.tuned_model
    else:
        with job.models.base_alone() as model:
            yield model


def _answer_kl(job: Job) -> NDArray[np.float64]:
    elicited = next(s for s in job.suites.suites if s.role == "elicited")
    assert job.config.elicit is not None, "an elicited suite comes from this section"
    return answer_divergence(job.models, elicited, job.config.elicit.answer_tokens)


def _write_diff(job: Job, planned: list[PlannedRun], identity: dict[str, Any], scheduler: Scheduler) -> None:
    readers = {(run.side, run.suite.name): job.store.open_run(run.run_id) for run in planned}
    pairs = [
        SuitePair(s.name, s.role, readers["base", s.name], readers["tuned", s.name])
        for s in job.suites.suites
    ]
    control = None
    if job.suites.control is not None:
        name = job.suites.control[0].name
        control = (readers["base", name], readers["control", name])
    tokenizer = job.models.base_tokenizer
    inputs = DiffInputs(
        pairs=pairs,
        prompts={s.name: s.tokens.suite.prompts for s in job.suites.suites},
        hooks=job.hooks,
        survey=job.suites.survey,
        control=control,
        logits=(job.models.base_logits, job.models.tuned_logits),
        answer_kl=lambda: _answer_kl(job),
        decode=lambda ids: [str(tokenizer.decode([i])) for i in ids],
        min_rows=job.config.elicit.min_rows if job.config.elicit else 3,
    )
    with job.store.diff_writer(identity) as writer:
        result = assemble(writer, inputs, scheduler)
        put_generations(writer, job.config, job.models, job.suites)
        writer.finish({**summary(job, planned), **result})
