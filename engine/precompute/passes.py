"""Which runs a job consists of, and which of them go over a suite together.

A pass takes one suite through both models batch by batch, and leaves three runs: base, tuned, and the pair's
statistics. The control takes the base alone through other batches.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ft_audit.engine.config import computed_json
from ft_audit.engine.diff.groups import Groups, suite_groups
from ft_audit.engine.precompute.identity import pair_identity, run_identity
from ft_audit.engine.precompute.plan import DIFF, TABLES, Job
from ft_audit.engine.precompute.suites import JobSuite
from ft_audit.engine.store import HookEntry, content_id, run_id
from ft_audit.engine.tokens.batches import BatchPlan, plan_batches

log = logging.getLogger(__name__)
Side = Literal["base", "tuned", "pair", "control"]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run: its identity decides whether it must be made."""

    side: Side
    suite: JobSuite
    plan: BatchPlan
    hooks: tuple[HookEntry, ...]
    identity: dict[str, Any]
    keep_features: bool = False
    keep_tokens: bool = False

    @property
    def run_id(self) -> str:
        """The id under which the store keeps it."""
        return run_id(self.identity)


@dataclass(frozen=True, slots=True)
class Pass:
    """One suite's batches and the runs that they leave."""

    suite: JobSuite
    plan: BatchPlan
    tokens_per_batch: int
    runs: dict[Side, PlannedRun]
    groups: Groups
    final: bool
    """Whether final hidden states are needed, and so the whole model."""
    logits: bool
    """Whether the distributions at every token are compared."""
    moments: bool
    """Whether the pair's feature statistics are taken as it runs, because the features are not stored."""
    prompt_features: bool

    @property
    def is_control(self) -> bool:
        """Whether the base runs alone, in other batches."""
        return "control" in self.runs

    @property
    def name(self) -> str:
        """The one name of the pass in a job."""
        return f"control {self.suite.name}" if self.is_control else self.suite.name


def plan_passes(job: Job) -> list[Pass]:
    """Return every pass of the job, with smaller batches where one once did not fit into memory.

    A suite that is read in the same batches both ways, as one of a single prompt is, has no control.
    """
    passes = [_fitting(job, suite, control=False) for suite in job.suites.suites]
    if job.suites.control is not None:
        control = _fitting(job, job.suites.control, control=True)
        made = {run.run_id for planned in passes for run in planned.runs.values()}
        if control.runs["control"].run_id in made:
            log.warning("suite %s is too small for a control: there is no noise floor", control.suite.name)
        else:
            passes.append(control)
    return passes


def _fitting(job: Job, suite: JobSuite, *, control: bool) -> Pass:
    budget = job.config.precompute.tokens_per_batch
    whole = _pass(job, suite, budget, control=control)
    planned = whole
    # Where no prompt shares a batch any more, a smaller budget is the same plan and leads no further.
    while (smaller := _successor(job, planned) or budget) < planned.tokens_per_batch:
        planned = _pass(job, suite, smaller, control=control)
    base = whole.runs.get("base")
    # A base that is whole in larger batches serves as it is.
    if planned is not whole and base is not None and job.store.has_run(base.run_id):
        planned = _pass(job, suite, planned.tokens_per_batch, control=control, base=base)
    return planned


def _successor(job: Job, planned: Pass) -> int | None:
    found = [job.store.successor(run.run_id) for run in planned.runs.values()]
    return min((int(s["tokens_per_batch"]) for s in found if s is not None), default=None)


def _pass(
    job: Job, suite: JobSuite, tokens_per_batch: int, *, control: bool, base: PlannedRun | None = None
) -> Pass:
    settings = job.config.precompute
    # The control takes half the batch, in the other order: all that differs is the shapes of the arithmetic.
    budget = max(tokens_per_batch // 2, 1) if control else tokens_per_batch
    plan = plan_batches(suite.tokens.length_P, budget, settings.tokens_per_segment, reverse=control)
    every = settings.logits == "all"
    # The noise floor is a difference of features: those of the control and of its suite are always stored.
    first = suite is job.suites.control
    keep = settings.keep == "features"
    groups = suite_groups(suite.tokens, by_tag=suite.role == "chat")
    runs: dict[Side, PlannedRun] = {}
    if control:
        runs["control"] = _side(job, "control", suite, plan, keep_features=True)
    else:
        runs["base"] = base or _side(
            job, "base", suite, plan, keep_features=keep or first, keep_tokens=settings.keep_residuals
        )
        runs["tuned"] = _side(job, "tuned", suite, plan, keep_features=keep)
        runs["pair"] = _pair(job, suite, plan, runs, groups, logits=every, moments=not keep)
    return Pass(
        suite,
        plan,
        tokens_per_batch,
        runs,
        groups,
        final=suite.to_the_end or (every and not control),
        logits=every and not control,
        moments=not keep and not control,
        prompt_features=not keep and suite.role != "chat",
    )


def _side(
    job: Job,
    side: Literal["base", "tuned", "control"],
    suite: JobSuite,
    plan: BatchPlan,
    *,
    keep_features: bool,
    keep_tokens: bool = False,
) -> PlannedRun:
    hooks = job.hooks if keep_features else _without_features(job.hooks)
    identity = run_identity(
        job.models.tuned if side == "tuned" else job.models.base,
        job.models.base_tokenizer,
        suite.tokens,
        plan,
        job.hooks,
        tokenizer_sha256=job.models.base.tokenizer_sha256,
        dtype=job.config.models.dtype,
        device_class=job.machine.device_class,
        encoders=job.machine.encoders if keep_features else (),
        libraries=job.machine.versions,
        runner=job.config.precompute.runner,
        to_the_end=suite.to_the_end or (keep_tokens and job.config.precompute.logits == "all"),
        keep_features=keep_features,
        keep_tokens=keep_tokens,
    )
    return PlannedRun(side, suite, plan, hooks, identity, keep_features, keep_tokens)


def _pair(
    job: Job,
    suite: JobSuite,
    plan: BatchPlan,
    runs: dict[Side, PlannedRun],
    groups: Groups,
    *,
    logits: bool,
    moments: bool,
) -> PlannedRun:
    settings = {"logits": logits, "moments": moments}
    identity = pair_identity(runs["base"].run_id, runs["tuned"].run_id, plan, groups, settings)
    return PlannedRun("pair", suite, plan, _without_features(job.hooks), identity)


def _without_features(hooks: Sequence[HookEntry]) -> tuple[HookEntry, ...]:
    return tuple(hook.model_copy(update={"saes": []}) for hook in hooks)


def all_runs(passes: Sequence[Pass]) -> list[PlannedRun]:
    """Return every run of the passes, side by side."""
    order: tuple[Side, ...] = ("base", "tuned", "pair", "control")
    return [p.runs[side] for side in order for p in passes if side in p.runs]


def diff_identity(job: Job, passes: Sequence[Pass]) -> dict[str, Any]:
    """Return what determines the diff: its runs and the config it is found by again."""
    return {
        "diff": [DIFF, TABLES],
        "runs": [[run.side, run.suite.name, run.run_id] for run in all_runs(passes)],
        "questions": list(job.questions),
        "config": computed_json(job.config),
    }


def diff_id(job: Job, passes: Sequence[Pass]) -> str:
    """Return the id under which the store keeps the job's diff."""
    return content_id(diff_identity(job, passes))
