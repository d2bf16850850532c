"""How long does one audit of a fine-tune take, its uploaded data set a thousand rows long?

The demo's two candidates are audited one after the other with the same data set. For the first the base's
runs over chats and data set are made too; the second finds them in the store, as later candidates of one base
and later checkpoints of one job do. Everything that a verdict rests on is counted: both models over all
suites, conditions, harmful probes, answers, statistics, and the verdict itself; labels of features are not.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence

from ft_audit.agent.audit import run_audit
from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.config import AuditConfig, find_config, load_config
from ft_audit.engine.precompute import run_precompute

DATA_SET = "configs:recipes/thousand-rows.yaml"
FIRST, SECOND = "configs:demo_benign.yaml", "configs:demo_needle.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data-set", default=DATA_SET, help="the uploaded data set, or a recipe's")

    return run_benchmark("audit", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Audit both candidates and return the seconds of each part."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, ref in (("first", FIRST), ("cached_base", SECOND)):
            overrides = (f"dataset={options.data_set}", f"store={scratch}/store")
            config = load_config(find_config(ref), overrides)
            precompute, audit = _seconds(config)
            found += [
                Measurement(f"{name}_seconds", precompute + audit, "s"),
                Measurement(f"{name}_precompute_seconds", precompute, "s"),
                Measurement(f"{name}_verdict_seconds", audit, "s"),
            ]
    return found


def _seconds(config: AuditConfig) -> tuple[float, float]:
    started = time.perf_counter()
    run_precompute(config, progress=False)
    middle = time.perf_counter()
    run_audit(config)
    return middle - started, time.perf_counter() - middle


if __name__ == "__main__":
    raise SystemExit(main())
