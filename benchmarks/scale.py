"""How does work grow: a job's memory and time with its tokens, speed with its workers, a large reduction?"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ft_audit.benchmarks.harness import Measurement, load_asked, run_benchmark
from ft_audit.benchmarks.scaling.growth import (
    POOL_TOKENS,
    capture_pool,
    memory_growth,
    open_ground,
    time_growth,
)
from ft_audit.benchmarks.scaling.reduction import Size, measure_reduction
from ft_audit.benchmarks.scaling.workers import Load, measure_workers

SIZES = (100_000, 500_000, 2_000_000)
PARTS = ("growth", "workers", "reduction")
QUICK = "checked over small sizes, which say nothing of speed or memory"
# Large enough to go through everything.
QUICK_SIZES, QUICK_POOL = (2_000, 4_000), 2_000
QUICK_LOAD = Load(num_prompts=16, tokens_per_segment=256, rounds=1)
QUICK_REDUCTION = Size(tokens_per_segment=2_048, num_segments=2, times=4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--quick", action="store_true", help="small sizes: whether it works, not how fast"
        )
        parser.add_argument("--rounds", type=int, default=3, help="of every timing (default: 3)")
        parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone")

    return run_benchmark("scale", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Measure every part, each with what it checks; what is left out says so."""
    parts = {"growth": measure_growth, "workers": _workers, "reduction": _reduction}
    found: list[Measurement] = []
    for name in PARTS:
        if not options.only or name in options.only:
            with tempfile.TemporaryDirectory() as scratch:
                found += parts[name](Path(scratch), options)
    measured = {m.name for m in found}
    asked = load_asked("scale")
    if options.quick:
        found = [replace(m, value=None, reason=QUICK) if m.name in asked else m for m in found]
    left_out = [name for name in asked if name not in measured]
    return [*found, *(Measurement(name, None, asked[name].unit, "left out by --only") for name in left_out)]


def measure_growth(scratch: Path, options: argparse.Namespace) -> list[Measurement]:
    """Return memory and time of jobs over a pool of real activations, as they grow."""
    sizes = QUICK_SIZES if options.quick else SIZES
    pool = scratch / "pool.pt"
    l0 = capture_pool(pool, QUICK_POOL if options.quick else POOL_TOKENS)
    found = memory_growth(pool, sizes)
    with open_ground(pool, scratch) as ground:
        found += time_growth(ground, sizes, 1 if options.quick else options.rounds, scratch)
    return [*found, Measurement("growth/pool_l0", l0, "features/token")]


def _workers(scratch: Path, options: argparse.Namespace) -> list[Measurement]:
    return measure_workers(scratch, QUICK_LOAD if options.quick else Load(rounds=options.rounds))


def _reduction(scratch: Path, options: argparse.Namespace) -> list[Measurement]:
    return measure_reduction(scratch, QUICK_REDUCTION if options.quick else Size())


if __name__ == "__main__":
    sys.exit(main())
