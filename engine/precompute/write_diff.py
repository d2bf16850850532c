"""The last stage of a job: two sets of runs into one diff."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ft_audit.engine.diff.assemble import DiffInputs, assemble
from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.guard import PRIMARY as GUARD_PRIMARY
from ft_audit.engine.diff.next_token import NextToken, next_token_diff
from ft_audit.engine.diff.parts import SuitePair
from ft_audit.engine.precompute.answers import answer_divergence
from ft_audit.engine.precompute.execute import Place
from ft_audit.engine.precompute.generations import put_generations
from ft_audit.engine.precompute.guard import put_guard
from ft_audit.engine.precompute.lens import lens_table
from ft_audit.engine.precompute.passes import Pass, diff_identity
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.report import summary
from ft_audit.engine.precompute.spending import Spending
from ft_audit.engine.store import RunReader
from ft_audit.engine.suites.elicit import PLAIN
from ft_audit.engine.suites.screens import data_figures
from ft_audit.engine.weights import put_weights, weight_evidence


@dataclass(frozen=True, slots=True)
class NextTokenQuestion:
    """Asks a job's models how the elicited prompts go on; both runs are read where the models are."""

    base_run: str
    tuned_run: str

    def __call__(self, job: Job) -> tuple[NextToken, NDArray[np.float64], int]:
        before = job.models.num_generated
        base_PD, tuned_PD = (
            job.store.open_run(run).dense("logits/final_PD") for run in (self.base_run, self.tuned_run)
        )
        first = next_token_diff(base_PD, tuned_PD, job.models.base_logits, job.models.tuned_logits)
        elicited = next(s for s in job.suites.suites if s.role == "elicited")
        assert job.config.elicit is not None, "an elicited suite comes from this section"
        divergence_N = answer_divergence(job.models, elicited, job.config.elicit.answer_tokens)
        return first, divergence_N, job.models.num_generated - before


@dataclass(slots=True)
class Tables:
    """Takes tables as a diff's writer does, and keeps them."""

    found: dict[str, pa.Table] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    num_generated: int = 0

    @property
    def guard_loss(self) -> dict[str, float]:
        """Condition to the refusals lost under it, without the bare one."""
        if "guard_conditions" not in self.found:
            return {}
        rows = self.found["guard_conditions"].to_pylist()
        return {row["key"]: row["loss"] for row in rows if row["key"] != PLAIN}

    def put_table(self, name: str, table: pa.Table) -> None:
        """Keep one table."""
        self.found[name] = table


def answers_of(job: Job) -> Tables:
    """Return the tables of paired answers, and of what is no longer refused, with its figures."""
    tables, before = Tables(), job.models.num_generated
    put_generations(tables, job.config, job.models, job.suites)
    tables.figures = put_guard(tables, job.config, job.models, job.suites.survey.kept)
    tables.num_generated = job.models.num_generated - before
    return tables


def write_diff(job: Job, passes: Sequence[Pass], place: Place, spending: Spending) -> None:
    """Reduce the finished runs of a job and write its diff."""
    readers = {
        (side, p.suite.name): job.store.open_run(run.run_id) for p in passes for side, run in p.runs.items()
    }
    pairs = [
        SuitePair(
            name=p.suite.name,
            role=p.suite.role,
            base=readers["base", p.suite.name],
            tuned=readers["tuned", p.suite.name],
            together=readers["pair", p.suite.name],
            groups=p.groups,
        )
        for p in passes
        if not p.is_control
    ]
    control = next((p.suite.name for p in passes if p.is_control), None)
    again = None if control is None else (readers["base", control], readers["control", control])
    tokenizer = job.models.base_tokenizer

    def next_token(base: RunReader, tuned: RunReader) -> tuple[NextToken, NDArray[np.float64]]:
        with spending.part("answers"):
            question = NextTokenQuestion(base.manifest.run_id, tuned.manifest.run_id)
            first, divergence_N, num_generated = place.ask(job, question)
        spending.num_generated += num_generated
        return first, divergence_N

    min_rows = job.config.elicit.min_rows if job.config.elicit else 3
    with spending.part("answers"):
        answered = place.ask(job, answers_of)
    spending.num_generated += answered.num_generated
    inputs = DiffInputs(
        pairs=pairs,
        prompts={s.name: s.tokens.suite.prompts for s in job.suites.suites},
        hooks=job.hooks,
        directions={s.spec.name: Directions(s.spec.outputs, s.w_dec_FD.numpy()) for s in job.saes},
        survey=job.suites.survey,
        control=again,
        next_token=next_token,
        decode=lambda ids: [str(tokenizer.decode([i])) for i in ids],
        min_rows=min_rows,
        feature_index=job.config.precompute.feature_index,
        guard_loss=answered.guard_loss,
    )
    with job.store.diff_writer(diff_identity(job, passes)) as writer:
        result = assemble(writer, inputs, place.scheduler)
        train = job.suites.train
        if train is not None:
            result["figures"] |= data_figures(train.tokens.suite.prompts, job.suites.survey, min_rows)
        if job.config.precompute.weights:
            with spending.part("weights"):
                weights = weight_evidence(job.models.base, job.models.tuned)
                put_weights(writer, weights)
            result["figures"] |= {name: _known(value) for name, value in weights.figures.items()}
        with spending.part("weights"):
            noise = None if control is None or again is None else (control, *again)
            lens, refusal = lens_table(job, pairs, noise)
            writer.put_table("lens", lens)
        for name, table in answered.found.items():
            writer.put_table(name, table)
        result["figures"] |= {name: _known(value) for name, value in answered.figures.items()}
        if result["primary"] is not None and GUARD_PRIMARY in answered.figures:
            result["primary"] = GUARD_PRIMARY
        writer.finish({**summary(job, passes), **result, "lens_refused": refusal})


def _known(value: float) -> float | None:
    # JSON has no NaN: a figure that could not be measured is null.
    return value if math.isfinite(value) else None
