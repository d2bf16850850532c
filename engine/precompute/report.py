"""What a job says of itself: the summary kept in the diff, and the figures of the run for the terminal."""

import importlib.metadata
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ft_audit.engine.config import computed_json
from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.precompute.execute import Written
from ft_audit.engine.precompute.passes import Pass, PlannedRun, all_runs, diff_id
from ft_audit.engine.precompute.plan import Job, protocol
from ft_audit.engine.store import RunReader
from ft_audit.engine.store.inventory import folder_bytes


@dataclass(slots=True)
class Speeds:
    """What the job's segments cost, those worked on now and not resumed from."""

    num_tokens: int = 0
    """Tokens read by a model; one that both read counts twice."""
    seconds: float = 0.0
    write_seconds: float = 0.0
    clock: Clock = field(default_factory=Clock)

    def add(self, written: Written) -> None:
        """Add one segment."""
        self.num_tokens += written.num_tokens
        self.seconds += written.seconds
        self.write_seconds += written.write_seconds
        self.clock.add(written.clock)

    def plain(self) -> dict[str, float | None]:
        """Return the speed per worker, and what each part takes of its time; writing goes on beside it."""
        parts: dict[str, float] = {name: getattr(self.clock, name) for name in self.clock.__slots__}
        whole = self.seconds or float("nan")
        found = {f"{name}_share": seconds / whole for name, seconds in parts.items()}
        found |= {"write_share": self.write_seconds / whole, "tokens_per_second": self.num_tokens / whole}
        return {name: value if self.seconds else None for name, value in found.items()}


def summary(job: Job, passes: Sequence[Pass]) -> dict[str, Any]:
    """Return what the diff's manifest tells its readers about models, suites, hooks and settings."""
    ids = {(run.side, run.suite.name): run.run_id for run in all_runs(passes)}
    survey = job.suites.survey
    return {
        "name": job.config.name,
        "models": {
            side: {"ref": s.ref, "format": s.format, "sha256": s.weights_sha256}
            for side, s in (("base", job.models.base), ("tuned", job.models.tuned))
        },
        "config": computed_json(job.config),
        "declared_purpose": job.config.declared_purpose,
        "suites": [
            {
                "name": s.name,
                "role": s.role,
                "num_prompts": len(s.tokens.suite.prompts),
                "num_tokens": s.num_tokens,
                "num_truncated": s.tokens.num_truncated,
                "num_windowed": s.tokens.num_windowed,
                "num_skipped": s.tokens.suite.num_skipped,
                "base_run": ids["base", s.name],
                "tuned_run": ids["tuned", s.name],
                "pair_run": ids["pair", s.name],
            }
            for s in job.suites.suites
        ],
        "control_run": next((run for (side, _), run in ids.items() if side == "control"), None),
        "hooks": [{"name": h.name, "layer": h.layer, "saes": [s.name for s in h.saes]} for h in job.hooks],
        "sae_sha256": [s.sha256 for h in job.hooks for s in h.saes],
        "protocol": protocol(job),
        "conditions_left_out": len(survey.cut),
        "findings": job.models.findings,
        "versions": {"ft-audit": importlib.metadata.version("ft-audit"), **job.machine.versions},
    }


def report(job: Job, passes: Sequence[Pass], speeds: Speeds, seconds: float, reused: bool) -> dict[str, Any]:
    """Return the ids, speeds and sizes of the job, as `precompute --json` prints them."""
    planned = all_runs(passes)
    sides = [(run, job.store.open_run(run.run_id)) for run in planned if run.side != "pair"]
    tokens = sum(reader.manifest.num_tokens for _, reader in sides)
    size = sum(folder_bytes(job.store.place, f"runs/{run.run_id}") for run in planned)
    return {
        "diff_id": diff_id(job, passes),
        "runs": [{"side": r.side, "suite": r.suite.name, "run_id": r.run_id} for r in planned],
        "store": job.store.location,
        "reused": reused,
        "backend": job.backend,
        "device": job.machine.device_class,
        "encoders": {s.spec.name: how for s, how in zip(job.saes, job.machine.encoders, strict=True)},
        "tokens": tokens,
        "seconds": round(seconds, 3),
        **speeds.plain(),
        "bytes_per_token": size / max(tokens, 1),
        "features_per_token": {sae.spec.name: _l0(sides, sae.spec.name) for sae in job.saes},
        "padding_share": {p.name: p.plan.padding_share for p in passes},
        "tokens_per_batch": {p.name: p.tokens_per_batch for p in passes},
        "truncated": {s.name: s.tokens.num_truncated for s in job.suites.suites},
        "windowed": {s.name: s.tokens.num_windowed for s in job.suites.suites},
        "peak_memory_bytes": _peak_memory(),
        "findings": job.models.findings,
    }


def _peak_memory() -> int:
    """Return the most memory this process has held, in bytes; the system counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _l0(sides: Sequence[tuple[PlannedRun, RunReader]], sae: str) -> float:
    """Return the mean number of features that fire on a counted token, over all runs."""
    fired = sum(float(reader.dense(f"sae/{sae}/fired_P").sum()) for _, reader in sides)
    return fired / max(sum(int(reader.dense("counted_P").sum()) for _, reader in sides), 1)
