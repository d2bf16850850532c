"""Runs `ft-audit precompute` in children of one process with its libraries loaded, and kills some of them.

    python kill_case.py CONFIG STORE...     one line of JSON on stdout for each store

The first store's job runs unbroken. Every other store is named after the moment at which its job dies:
`fsync-N` just before the N-th file is forced to the disk, `segment-N` as soon as N segments are seen from
outside, `diff` as soon as the diff's folder is. It is killed, told what it left, and run again to its end.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Loaded once, before the first fork.
import peft  # noqa: F401
import torch
from transformers.models.llama import modeling_llama  # noqa: F401

from ft_audit import cli
from ft_audit.engine.precompute import run_precompute  # noqa: F401
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights


def warm() -> None:
    """Let numba set itself up, which takes it a second in every process."""
    ones = torch.ones(4)
    Encoder(JumpReluWeights(torch.ones(4, 4), ones, ones, None)).encode(torch.ones(1, 4))


def child(config: str, store: Path, die_at: int | None) -> int:
    """Start the job in a child process; it dies before its `die_at`-th fsync, if that is given."""
    pid = os.fork()
    if pid:
        return pid
    real: Callable[[Any], None] = os.fsync
    calls = [0]

    def fsync(fd: Any) -> None:
        calls[0] += 1
        if calls[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd)

    os.fsync = fsync
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os._exit(cli.main(["precompute", config, f"store={store}", "--json", "--no-progress"]))


def seen(store: Path, moment: str, number: int) -> bool:
    if moment == "diff":
        return any((store / "diffs").glob("*.tmp/stats.zarr/residual"))
    return len([*store.glob("runs/*/segments/*.zarr")]) >= number


def run(config: str, store: Path, *, killed: bool) -> int:
    """Return how the child ended: its exit code, or minus the signal."""
    moment, _, number = store.name.partition("-")
    pid = child(config, store, int(number) if killed and moment == "fsync" else None)
    if killed and moment != "fsync":
        while not seen(store, moment, int(number or 0)):
            if os.waitpid(pid, os.WNOHANG)[0]:
                return 0
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def left_by(store: Path) -> list[str]:
    """The segments and half-written folders that a killed job left."""
    found = [*store.glob("runs/*/segments/*.zarr*"), *store.glob("diffs/*")]
    return sorted(path.relative_to(store).as_posix() for path in found)


if __name__ == "__main__":
    config, *stores = sys.argv[1:]
    warm()
    for number, store in enumerate(map(Path, stores)):
        codes = [] if number == 0 else [run(config, store, killed=True)]
        left = left_by(store)
        codes.append(run(config, store, killed=False))
        print(json.dumps({"store": str(store), "codes": codes, "left": left}), flush=True)
