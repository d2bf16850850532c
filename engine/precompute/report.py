"""What a job says of itself: the summary kept in the diff, and the figures of the run for the terminal."""

import importlib.metadata
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ft_audit.engine.precompute.identity import versions
from ft_audit.engine.precompute.plan import Job, PlannedRun, computed_config, protocol
from ft_audit.engine.precompute.run_suite import RunSpeed
from ft_audit.engine.store import RunReader


@dataclass(slots=True)
class Speeds:
    """What the job's runs cost, per side."""

    runs: dict[str, list[RunSpeed]] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)
    """What encoded with each dictionary in the end, as "cpu: int8 screening"; empty when nothing ran."""

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


def summary(job: Job, planned: Sequence[PlannedRun]) -> dict[str, Any]:
    """Return what the diff's manifest tells its readers about models, suites, hooks and settings."""
    ids = {(run.side, run.suite.name): run.run_id for run in planned}
    survey = job.suites.survey
    return {
        "name": job.config.name,
        "models": {
            side: {"ref": s.ref, "format": s.format, "sha256": s.weights_sha256}
            for side, s in (("base", job.models.base), ("tuned", job.models.tuned))
        },
        "config": computed_config(job.config),
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


def report(
    job: Job, planned: Sequence[PlannedRun], diff_id: str, speeds: Speeds, seconds: float, reused: bool
) -> dict[str, Any]:
    """Return the ids, speeds and sizes of the job, as `precompute --json` prints them."""
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
        "encoders": speeds.encoders,
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
        "peak_memory_bytes": _peak_memory(),
        "findings": job.models.findings,
    }


def _peak_memory() -> int:
    """Return the most memory this process has held, in bytes; the system counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _l0(readers: Sequence[tuple[PlannedRun, RunReader]], sae: str) -> float:
    """Return the mean number of features that fire on a counted token, over all runs."""
    fired = counted = 0
    for _, reader in readers:
        for segment in reader.segments(saes=(sae,), dense=()):
            fired += len(segment.features[sae][1])
            counted += int(segment.mask_T.sum())
    return fired / max(counted, 1)
