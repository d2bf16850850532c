"""The diff statistics of many synthetic token pairs on two workers: how fast, and in how much memory."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from ft_audit.benchmarks.harness import Measurement
from ft_audit.benchmarks.storing.firing import Firing
from ft_audit.benchmarks.storing.synthetic import Suite, draw_suite
from ft_audit.engine.cluster import Scheduler, local_cluster, open_scheduler
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.store import HookEntry, RunReader, SaeEntry, SegmentData, Store, run_id
from ft_audit.kernels.diff_stats import PairMoments

NUM_FEATURES = 65_536
L0 = 64
TOKENS_PER_SEGMENT = 65_536  # the default of a job
NUM_SEGMENTS = 8
SAE = "synthetic-65k"
SIDES = ("base", "tuned")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Size:
    """What is reduced: a dictionary of so many features over distinct segments, each read several times."""

    num_features: int = NUM_FEATURES
    tokens_per_segment: int = TOKENS_PER_SEGMENT
    num_segments: int = NUM_SEGMENTS
    times: int = 96

    @property
    def num_tokens(self) -> int:
        """About how many token pairs are reduced."""
        return self.tokens_per_segment * self.num_segments * self.times


@dataclass(frozen=True, slots=True)
class RepeatedRun:
    """A stored run read again and again, as if every reading were segments of other prompts."""

    run: RunReader
    times: int

    @property
    def manifest(self) -> Any:
        """The stored run's."""
        return self.run.manifest

    @property
    def num_segments(self) -> int:
        """Of all readings."""
        return self.run.num_segments * self.times

    def segment(self, number: int, **parts: Any) -> SegmentData:
        """Read, verify and decode a segment as the stored run does."""
        reading, stored = divmod(number, self.run.num_segments)
        data = self.run.segment(stored, **parts)
        return replace(data, prompt_P=data.prompt_P + reading * self.run.manifest.num_prompts)


@dataclass(frozen=True, slots=True)
class Reduced:
    """One reduction: how many token pairs, how long it took, and the peak memory of every process."""

    num_tokens: int
    seconds: float
    client_bytes: int
    worker_bytes: tuple[int, ...]


def write_runs(store: Path, size: Size) -> float:
    """Write base and tuned through the store's own writer; return how many features fire on a token."""
    # Every token counts: features that fire nowhere would flatter the rate.
    firing = Firing.shipped().model_copy(update={"counted_share": 1.0})
    num_tokens = size.tokens_per_segment * size.num_segments
    suite = draw_suite(firing, num_tokens, size.num_features, L0, size.tokens_per_segment)
    fired = [_write_side(Store(store), side, suite) for side in SIDES]
    return sum(fired) / (2 * suite.num_tokens)


def _write_side(store: Store, side: str, suite: Suite) -> int:
    sae = SaeEntry(name=SAE, width=suite.num_features, sha256="0" * 64)
    hook = HookEntry(name="resid_post/15", layer=15, site="resid_post", saes=[sae])
    fired = 0
    with store.run_writer(_identity(side), [hook]) as writer:
        for number in range(len(suite.segments)):
            data = suite.segment(number, side, SAE)
            fired += len(data.features[SAE][1])
            writer.write_segment(number, data)
        writer.finish()
    return fired


def _identity(side: str) -> dict[str, Any]:
    return {"benchmark": "scale", "side": side}


def open_runs(store: Path, times: int) -> tuple[RunReader, RunReader]:
    """Return both runs, each read so many times."""
    opened = Store(store)
    found = [RepeatedRun(opened.open_run(run_id(_identity(side))), times) for side in SIDES]
    return cast(tuple[RunReader, RunReader], tuple(found))


def reduce(store: Path, times: int, scheduler: Scheduler) -> PairMoments:
    """Reduce as a job does."""
    base, tuned = open_runs(store, times)
    return pair_moments(base, tuned, SAE, scheduler)


def verify(store: Path, times: int, scheduler: Scheduler) -> None:
    """Raise unless the cluster gives the bits of threads, and as many counts as there were readings."""
    with open_scheduler() as threads:
        here, once = reduce(store, times, threads), reduce(store, 1, threads)
    there = reduce(store, times, scheduler)
    assert there.num_tokens == times * once.num_tokens, "token pairs were lost or read twice"
    for name, found in there.arrays().items():
        assert found.tobytes() == here.arrays()[name].tobytes(), f"{name} differs on the cluster"
        if name.startswith(("fired", "prompts")):
            assert (found == times * once.arrays()[name]).all(), f"{name} is not that of every reading"


def child(store: Path, times: int, num_workers: int) -> Reduced:
    """Reduce over a cluster of our own; nothing else may have run in this process."""
    with local_cluster(num_workers, threads=1) as scheduler:
        verify(store, 2, scheduler)
        started = time.perf_counter()
        found = reduce(store, times, scheduler)
        seconds = time.perf_counter() - started
        assert scheduler.client is not None, "a cluster has one"
        workers: Mapping[str, int] = scheduler.client.run(peak_bytes)
        return Reduced(found.num_tokens, seconds, peak_bytes(), tuple(workers.values()))


def peak_bytes() -> int:
    """Return the most memory that this process has held resident."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_reduction(scratch: Path, size: Size, num_workers: int = 2) -> list[Measurement]:
    """Write the runs, reduce them in a fresh process with its workers, and return speed and memory."""
    l0 = write_runs(scratch, size)
    assert abs(l0 / L0 - 1) < 0.05, f"{l0} features fire on a token, not {L0}"
    command = [sys.executable, "-m", "ft_audit.benchmarks.scaling.reduction"]
    command += [str(scratch), str(size.times), str(num_workers)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"the reduction failed: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    memory: Sequence[int] = (found["client_bytes"], *found["worker_bytes"])
    stored = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return [
        Measurement("reduction/memory", sum(memory) / 1e9, "GB"),
        Measurement("reduction/rate", found["num_tokens"] / found["seconds"], "pairs/s"),
        Measurement("reduction/pairs", found["num_tokens"], "pairs"),
        Measurement("reduction/seconds", found["seconds"], "s"),
        Measurement("reduction/l0", l0, "features/token"),
        Measurement("reduction/client_memory", memory[0] / 1e9, "GB"),
        Measurement("reduction/largest_worker_memory", max(memory[1:]) / 1e9, "GB"),
        Measurement("reduction/store", stored / 1e9, "GB"),
    ]


if __name__ == "__main__":
    print(json.dumps(asdict(child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
