"""Owns the measuring of a way's peak memory: a process of its own on a CPU, torch's counters on a GPU.

On a CPU two figures: `prepared` is what building the way costs beside the weights as they were given (other
layouts, precisions), `extra` what encoding then needs at its peak beyond that and beyond the result. On a
GPU buffers are counted where they are reserved, so that `extra` holds both.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ft_audit.benchmarks.encoding.case import Case, at_least
from ft_audit.benchmarks.encoding.way import Operands, num_bytes
from ft_audit.benchmarks.encoding.ways import build_way
from ft_audit.kernels.jumprelu import JumpReluWeights
from ft_audit.kernels.jumprelu.cpu import MIN_RACE_ROWS

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs
WARM_UP_ROWS = 2  # compiles what is compiled, and touches next to nothing of any buffer
# Ours may compare its paths on the first large block and then builds what the faster one needs. Half of its
# buffers of a few megabytes are then touched too.
OURS_WARM_UP_ROWS = MIN_RACE_ROWS
# glibc would keep up to 64 MB of what was freed, and serve later requests from it.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_TOP_PAD_": "0"}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one way over so many rows."""

    prepared: int
    extra: int
    result: int


def can_measure(device: torch.device) -> bool:
    """Whether peaks can be read: on a GPU, and where the kernel lets a process reset its own."""
    return device.type == "cuda" or CLEAR_REFS.exists()


def measure_memory(case: Case, name: str, num_rows: int, scratch: Path) -> Memory:
    """Peak memory of the way called `name` over `num_rows` rows of the case, in one call."""
    if case.x_TD.device.type == "cuda":
        return _on_gpu(case, name, num_rows)
    path = scratch / "case.pt"
    if not path.exists():
        weights = case.weights
        tensors = (case.x_TD, weights.w_enc_DF, weights.b_enc_F, weights.threshold_F, weights.b_dec_D)
        torch.save(tensors, path)
    command = [sys.executable, "-m", "ft_audit.benchmarks.encoding.memory", str(path), name, str(num_rows)]
    environment = os.environ | GIVE_BACK
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"measuring {name} failed: {done.stderr[-2000:]}"
    prepared, extra, result = (int(word) for word in done.stdout.splitlines()[-1].split())
    return Memory(prepared, extra, result)


def _on_gpu(case: Case, name: str, num_rows: int) -> Memory:
    x_TD = at_least(case.x_TD, num_rows)
    before = torch.cuda.memory_allocated()
    way = build_way(name, Operands(case.weights), num_rows, 64)
    way.encode(x_TD[:WARM_UP_ROWS])
    prepared = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    result = num_bytes(way.encode(x_TD))
    return Memory(prepared, torch.cuda.max_memory_allocated() - before - result, result)


@torch.inference_mode()
def child(path: Path, name: str, num_rows: int) -> Memory:
    """The memory of this process while it encodes; nothing else may have run in it."""
    tensors: Any = torch.load(path, weights_only=True)
    x_TD, weights = at_least(tensors[0], num_rows), JumpReluWeights(*tensors[1:])
    # What a library's import costs is no part of either figure.
    build_way(name, Operands(_narrow(weights)), WARM_UP_ROWS, 1).encode(x_TD[:WARM_UP_ROWS])
    before = _resident("VmRSS")
    way = build_way(name, Operands(weights), num_rows, 64)
    way.encode(x_TD[: OURS_WARM_UP_ROWS if way.kind == "ours" else WARM_UP_ROWS])
    ready = _resident("VmRSS")
    CLEAR_REFS.write_text(RESET_PEAK)
    result = num_bytes(way.encode(x_TD))
    return Memory(ready - before, _resident("VmHWM") - ready - result, result)


def _narrow(weights: JumpReluWeights) -> JumpReluWeights:
    narrow = slice(0, 64)
    w_enc_Df = weights.w_enc_DF[:, narrow].contiguous()
    return JumpReluWeights(w_enc_Df, weights.b_enc_F[narrow], weights.threshold_F[narrow], weights.b_dec_D)


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peaks(case: Case, ours: str, peers: Sequence[str], rows: Sequence[int]) -> dict[tuple[str, int], Memory]:
    """Memory by way and number of rows: ours over all of `rows`, the peers over the first alone."""
    wanted = [(ours, num_rows) for num_rows in rows] + [(peer, rows[0]) for peer in peers]
    with tempfile.TemporaryDirectory() as scratch:
        return {key: measure_memory(case, *key, Path(scratch)) for key in wanted}


if __name__ == "__main__":
    found = child(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(found.prepared, found.extra, found.result)
