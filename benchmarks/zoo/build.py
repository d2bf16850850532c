"""Building the zoo: every member trained, measured and reduced to the summary that is kept."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ft_audit.agent.summary import SCHEMA_VERSION, Summary, summarise
from ft_audit.benchmarks.calibrate import member_config
from ft_audit.benchmarks.zoo.controls import candidate
from ft_audit.benchmarks.zoo.dictionaries import UNTRAINED, make_untrained, untrained_evidence
from ft_audit.benchmarks.zoo.population import Member, Zoo, load_zoo, members
from ft_audit.engine.config import AuditConfig, computed_json, load_config, resolve_path
from ft_audit.engine.finetune import run_finetune
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.precompute.identity import EVIDENCE
from ft_audit.engine.precompute.plan import DIFF
from ft_audit.engine.store import Store


def build(
    path: Path,
    work: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    only: str | None = None,
    jobs: int = 1,
    limit: int | None = None,
    most: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Build every member that has no summary yet and return how many were built, reused and failed a gate.

    Members are taken in order; each is locked while it is worked on, so that several processes may build one
    zoo, and what was killed goes on where it was. `jobs` processes at a time share the work, each member in
    one of its own; `only` builds the members whose name holds the text, and `most` so many of them.
    """
    zoo = load_zoo(path, overrides)
    measured = measured_sha256(audit_of(zoo))
    wanted = [m for m in members(zoo) if only is None or only in m.name][:limit]
    built, gates = 0, 0
    started = time.monotonic()
    if jobs > 1:
        _share(jobs, path, work, out, overrides, only, limit)
    for number, member in enumerate(wanted, start=1):
        with _mine(work, member) as mine:
            if not mine or is_built(member, out, measured) or built == most:
                continue
            print(f"[{number}/{len(wanted)}] {member.name}", file=sys.stderr, flush=True)
            summary = build_member(zoo, member, work, progress=progress)
            write_summary(summary, out)
            built += 1
            gates += not summary.gate_passed
    done = sum(is_built(member, out, measured) for member in wanted)
    return {
        "members": len(wanted),
        "summaries": done,
        "built_here": built,
        "gates_failed_here": gates,
        "seconds": round(time.monotonic() - started, 1),
        "out": str(out),
    }


def build_member(zoo: Zoo, member: Member, work: Path, *, progress: bool = True) -> Summary:
    """Train one member (or reuse it), precompute its evidence, and return its summary."""
    folder = work / member.folder_name
    with _locked(work / f"{member.folder_name}.lock"):
        trained = run_finetune(member.path, folder, member.overrides, progress=progress)
    audit = audit_of(zoo)
    config = member_config(audit, member.recipe, folder, candidate(zoo, member, folder))
    with _shared_runs(audit, work):
        dictionaries = make_untrained(audit, work / f"dictionaries-{measured_sha256(audit)[:16]}")
        started = time.monotonic()
        done = run_precompute(config, progress=False)
        seconds = time.monotonic() - started
        untrained = untrained_evidence(config, dictionaries)
    diff = Store(done["store"]).open_diff(done["diff_id"])
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["rows"]
    summary = summarise(
        diff,
        name=member.name,
        recipe=member.recipe.name,
        recipe_sha256=member.recipe.sha256,
        measured_sha256=measured_sha256(audit),
        family=member.recipe.family or "",
        kind=member.recipe.kind if member.change == "none" else "control",
        seed=member.recipe.seed,
        declared_purpose=member.recipe.declared_purpose,
        gate=trained["gate"],
        training=trained["training"],
        roles={role: rows for role, rows in truth.items() if role != "benign"},
        seconds=round(seconds, 1),
    )
    return summary.model_copy(update={"untrained": untrained})


def audit_of(zoo: Zoo) -> AuditConfig:
    """Return the audit that every member is measured with."""
    return load_config(resolve_path(zoo.audit, zoo.base_dir))


def summary_path(name: str, out: Path) -> Path:
    """Return where a member's summary is kept."""
    return out / f"{name}.json"


def is_built(member: Member, out: Path, measured: str) -> bool:
    """Return whether the folder holds this member's summary, of this very recipe and measured this way."""
    path = summary_path(member.name, out)
    if not path.exists():
        return False
    origin = json.loads(path.read_text(encoding="utf-8"))["origin"]
    return (origin["recipe_sha256"], origin.get("measured_sha256")) == (member.recipe.sha256, measured)


def measured_sha256(audit: AuditConfig) -> str:
    """Return the hash of how members are measured: what the audit computes, and which version of it."""
    how = [EVIDENCE, DIFF, SCHEMA_VERSION, UNTRAINED, computed_json(audit)]
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()


def write_summary(summary: Summary, out: Path) -> None:
    """Write a summary whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    path = summary_path(summary.name, out)
    partial = path.with_suffix(".tmp")
    partial.write_text(summary.to_json(), encoding="utf-8")
    partial.replace(path)


@contextmanager
def _shared_runs(audit: AuditConfig, work: Path) -> Iterator[None]:
    """Let one process alone make what all members share, the base over the chat suite; then all at once."""
    made = work / f"shared-{measured_sha256(audit)[:16]}.made"
    with _locked(work / "shared.lock") as lock:
        if made.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield
        made.touch()


@contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """Wait for a lock and hold it: a control is made of a member that another process may be training."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@contextmanager
def _mine(work: Path, member: Member) -> Iterator[bool]:
    """Whether this process has the member for the block; the lock ends with the process."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / f"{member.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _share(
    jobs: int,
    path: Path,
    work: Path,
    out: Path,
    overrides: Sequence[str],
    only: str | None,
    limit: int | None,
) -> None:
    """Build in several processes at a time, each with its part of the cores, and wait for the last.

    A process ends with its member: what training and models leave behind in memory grows by gigabytes.
    """
    options = ["--work", str(work), "--out", str(out), "--no-progress", "--most", "1", "--json"]
    options += ["--only", only] if only is not None else []
    options += ["--limit", str(limit)] if limit is not None else []
    command = [sys.executable, "-m", "ft_audit.cli", "zoo", "build", str(path), *overrides, *options]
    # Small matrices gain little from a second thread: as many processes as cores are the faster half again.
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}

    def work_on() -> None:
        while True:
            # What is refused or was killed prints nothing, and would fail again at once.
            said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False).stdout
            if not said or not json.loads(said)["built_here"]:
                return

    with ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(work_on) for _ in range(jobs)]:
            worker.result()
