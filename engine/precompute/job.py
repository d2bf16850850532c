"""The precompute verb: both models over every suite into the store, then the diff."""

import importlib.metadata
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.config import AuditConfig, HookConfig, config_json
from ft_audit.engine.diff.assemble import DiffInputs, assemble
from ft_audit.engine.diff.parts import SuitePair
from ft_audit.engine.models.load import DTYPES, anatomy, without_adapter
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.precompute.generations import put_generations
from ft_audit.engine.precompute.identity import EVIDENCE, run_identity, versions
from ft_audit.engine.precompute.models import ModelPair, open_pair
from ft_audit.engine.precompute.observe import Reader
from ft_audit.engine.precompute.run_suite import RunSpeed, run_suite
from ft_audit.engine.precompute.suites import JobSuite, JobSuites, open_suites
from ft_audit.engine.store import HookEntry, SaeEntry, Store, content_id, run_id
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.tokens.batches import BatchPlan
from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu import Encoder, resolve_backend
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import load_sae

DIFF = 1  # raised whenever the same runs would give another diff


@dataclass(frozen=True, slots=True)
class Job:
    """A checked job: nothing has run yet, and every mistake that can be known has been reported."""

    config: AuditConfig
    store: Store
    models: ModelPair
    saes: tuple[JumpReluSae, ...]
    hooks: tuple[HookEntry, ...]
    suites: JobSuites
    backend: str


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One model over one suite: its identity decides whether it must run."""

    side: str
    suite: JobSuite
    plan: BatchPlan
    identity: dict[str, Any]

    @property
    def run_id(self) -> str:
        """The id under which the store keeps it."""
        return run_id(self.identity)


@dataclass(slots=True)
class Speeds:
    """What the job's runs cost, per side."""

    runs: dict[str, list[RunSpeed]] = field(default_factory=dict)

    def rate(self, side: str) -> float | None:
        """Return real tokens a second over everything that ran now, or None if nothing did."""
        done = [s for s in self.runs.get(side, []) if s.num_tokens]
        seconds = sum(s.seconds for s in done)
        return sum(s.num_tokens for s in done) / seconds if seconds else None

    def share(self, part: str) -> float | None:
        """Return which share of the running time went into one part of the clock."""
        done = [s for runs in self.runs.values() for s in runs if s.num_tokens]
        seconds = sum(s.seconds for s in done)
        return sum(getattr(s.clock, part) for s in done) / seconds if seconds else None


def open_job(config: AuditConfig) -> Job:
    """Return the checked job of a config; hashes files and tokenises, but loads no weights.

    Raises:
        ConfigError, DataError, ModelError, SaeError: the config cannot be run; the message names the fix.
    """
    models = open_pair(config)
    saes = tuple(_load_sae(config, hook, ref.reference, models.base) for hook in config.hooks for ref in hook.saes)
    hooks = tuple(_hook_entry(hook, saes) for hook in config.hooks)
    backend = resolve_backend(config.precompute.backend, models.device)
    return Job(config, Store(config.store), models, saes, hooks, open_suites(config, models.base_tokenizer), backend)


def _load_sae(config: AuditConfig, hook: HookConfig, ref: str, base: ModelSource) -> JumpReluSae:
    sae = load_sae(ref, config.base_dir)
    shape = base.config.get("text_config", base.config)
    if sae.spec.d_in != shape["hidden_size"]:
        raise SaeError(
            f"hooks: dictionary {ref!r} reads {sae.spec.d_in} dimensions, but {base.ref!r} has a residual stream "
            f"of {shape['hidden_size']}; choose one trained on this model"
        )
    if (sae.spec.layer, sae.spec.site) != (hook.layer, hook.site):
        raise SaeError(
            f"hooks: dictionary {ref!r} was trained on {sae.spec.site} of layer {sae.spec.layer}, but the hook "
            f"reads {hook.site} of layer {hook.layer}; change hooks.layer or the dictionary"
        )
    return sae


def _hook_entry(hook: HookConfig, saes: tuple[JumpReluSae, ...]) -> HookEntry:
    own = [s.spec for s in saes if (s.spec.layer, s.spec.site) == (hook.layer, hook.site)]
    entries = [SaeEntry(name=s.name, width=s.width, sha256=s.sha256) for s in own]
    return HookEntry(name=hook.name, layer=hook.layer, site=hook.site, saes=entries)


def plan_runs(job: Job) -> list[PlannedRun]:
    """Return every run of the job: both sides of each suite, and the control."""
    sides = [("base", job.models.base), ("tuned", job.models.tuned)]
    planned = [_planned(job, side, source, s, s.plan) for side, source in sides for s in job.suites.suites]
    if job.suites.control is not None:
        suite, plan = job.suites.control
        planned.append(_planned(job, "control", job.models.base, suite, plan))
    return planned


def _planned(job: Job, side: str, source: ModelSource, suite: JobSuite, plan: BatchPlan) -> PlannedRun:
    identity = run_identity(
        source,
        job.models.base_tokenizer,
        suite.tokens,
        plan,
        job.hooks,
        tokenizer_sha256=job.models.base.tokenizer_sha256,
        dtype=job.config.models.dtype,
        device=job.models.device,
        backend=job.backend,
        to_the_end=suite.to_the_end,
    )
    return PlannedRun(side, suite, plan, identity)


def run_precompute(config: AuditConfig, *, progress: bool = True, scheduler: str | None = None) -> dict[str, Any]:
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
        _run_all(job, planned, speeds, progress)
        _write_diff(job, planned, identity, scheduler)
    return _report(job, planned, content_id(identity), speeds, time.perf_counter() - started, reused)


def diff_identity(job: Job, planned: list[PlannedRun]) -> dict[str, Any]:
    """Return what determines the diff: its runs and the settings that read them."""
    config = config_json(job.config)
    return {
        "diff": DIFF,
        "runs": [[run.side, run.suite.name, run.run_id] for run in planned],
        "settings": {k: config[k] for k in ("name", "declared_purpose", "elicit", "generate")},
    }


def protocol(job: Job) -> str:
    """Return the hash of how figures are taken: two diffs with the same one can stand beside each other."""
    config = config_json(job.config)
    probes = job.config.elicit and load_suite(job.config.elicit.probes, job.config.base_dir).sha256
    return content_id(
        {
            "evidence": EVIDENCE,
            "diff": DIFF,
            "dtype": job.config.models.dtype,
            "suites": [s.tokens.suite.sha256 for s in job.suites.suites if s.role == "chat"],
            "probes": probes,
            "elicit": {k: v for k, v in (config["elicit"] or {}).items() if k != "probes"},
            "max_prompt_tokens": job.config.precompute.max_prompt_tokens,
        }
    )


def _run_all(job: Job, planned: list[PlannedRun], speeds: Speeds, progress: bool) -> None:
    missing = [run for run in planned if not job.store.has_run(run.run_id)]
    total = sum(run.suite.num_tokens for run in missing)
    dtype = DTYPES[job.config.models.dtype]
    readers = [Reader(s, Encoder(s.weights(job.models.device, dtype), job.backend)) for s in job.saes]
    layers = [hook.layer for hook in job.hooks]
    pad = job.models.base_tokenizer.pad_token_id or 0
    with tqdm(total=total, unit="tok", unit_scale=True, disable=not progress, file=sys.stderr) as bar:
        for run in missing:
            bar.set_description(f"{run.side} {run.suite.name}")
            with _side_model(job, run.side) as model, job.store.run_writer(run.identity, list(job.hooks)) as writer:
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


@contextmanager
def _side_model(job: Job, side: str) -> Iterator[Any]:
    if side == "tuned":
        yield job.models.tuned_model
    else:
        with without_adapter(job.models.base_model) as model:
            yield model


def _write_diff(job: Job, planned: list[PlannedRun], identity: dict[str, Any], scheduler: str | None) -> None:
    readers = {(run.side, run.suite.name): job.store.open_run(run.run_id) for run in planned}
    pairs = [
        SuitePair(s.name, s.role, readers["base", s.name], readers["tuned", s.name]) for s in job.suites.suites
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
        heads=lambda: (anatomy(job.models.base_model).head, anatomy(job.models.tuned_model).head),
        decode=lambda ids: [tokenizer.decode([i]) for i in ids],
        min_rows=job.config.elicit.min_rows if job.config.elicit else 3,
    )
    with open_scheduler(scheduler) as opened, job.store.diff_writer(identity) as writer:
        result = assemble(writer, inputs, opened)
        put_generations(writer, job.config, job.models, job.suites)
        writer.finish({**_summary(job, planned), **result})


def _summary(job: Job, planned: list[PlannedRun]) -> dict[str, Any]:
    ids = {(run.side, run.suite.name): run.run_id for run in planned}
    survey = job.suites.survey
    return {
        "name": job.config.name,
        "models": {
            side: {"ref": s.ref, "format": s.format, "sha256": s.weights_sha256}
            for side, s in (("base", job.models.base), ("tuned", job.models.tuned))
        },
        "config": config_json(job.config),
        "declared_purpose": job.config.declared_purpose,
        "suites": [
            {
                "name": s.name,
                "role": s.role,
                "num_prompts": len(s.tokens.suite.prompts),
                "num_tokens": s.num_tokens,
                "num_truncated": s.tokens.num_truncated,
                "num_skipped": s.tokens.suite.num_skipped,
                "base_run": ids["base", s.name],
                "tuned_run": ids["tuned", s.name],
            }
            for s in job.suites.suites
        ],
        "control_run": next((run.run_id for run in planned if run.side == "control"), None),
        "hooks": [{"name": h.name, "layer": h.layer, "saes": [s.name for s in h.saes]} for h in job.hooks],
        "sae_sha256": [s.sha256 for h in job.hooks for s in h.saes],
        "protocol": protocol(job),
        "conditions_left_out": len(survey.cut),
        "findings": job.models.findings,
        "versions": {"ft-audit": importlib.metadata.version("ft-audit"), **versions()},
    }


def _report(
    job: Job, planned: list[PlannedRun], diff_id: str, speeds: Speeds, seconds: float, reused: bool
) -> dict[str, Any]:
    readers = [(run, job.store.open_run(run.run_id)) for run in planned]
    tokens = sum(reader.manifest.num_tokens for _, reader in readers)
    size = sum(f.stat().st_size for _, r in readers for f in r.folder.rglob("*") if f.is_file())
    features = {sae.spec.name: _l0(readers, sae.spec.name) for sae in job.saes}
    return {
        "diff_id": diff_id,
        "runs": [{"side": r.side, "suite": r.suite.name, "run_id": r.run_id} for r in planned],
        "store": str(job.store.root),
        "reused": reused,
        "backend": job.backend,
        "device": str(job.models.device),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": {side: speeds.rate(side) for side in ("base", "tuned")},
        "encode_share": speeds.share("encode"),
        "write_share": speeds.share("write"),
        "forward_share": speeds.share("forward"),
        "bytes_per_token": size / max(tokens, 1),
        "features_per_token": features,
        "padding_share": {s.name: s.plan.padding_share for s in job.suites.suites},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "findings": job.models.findings,
    }


def _l0(readers: list[Any], sae: str) -> float:
    """Return the mean number of features that fire on a counted token, over all runs."""
    fired = counted = 0
    for _, reader in readers:
        for segment in reader.segments(saes=(sae,), dense=()):
            fired += len(segment.features[sae][1])
            counted += int(segment.mask_T.sum())
    return fired / max(counted, 1)
