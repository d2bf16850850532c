"""How long does one audit of a fine-tune take, its uploaded data set a thousand rows long?

The demo's two candidates are audited one after the other with the same data set. For the first the base's
runs over chats and data set are made too; the second finds them in the store with their activations
(`precompute.keep_residuals`), as later candidates of one base and later checkpoints of one job do. Everything
that a verdict rests on is counted: the models over all suites, conditions, harmful probes, answers,
statistics, and the verdict itself; labels of features are not.
"""

import argparse
import tempfile
from collections.abc import Sequence

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.benchmarks.one_audit import audit_of_config

DATA_SET = "configs:recipes/thousand-rows.yaml"
KEEP = "precompute.keep_residuals=true"
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
            overrides = (f"dataset={options.data_set}", f"store={scratch}/store", KEEP)
            done = audit_of_config(ref, (), overrides, progress=False)[0]
            seconds, parts = done["seconds"], done["verdict"]["cost"]["seconds"]
            found += [
                Measurement(f"{name}_seconds", sum(seconds.values()), "s"),
                Measurement(f"{name}_precompute_seconds", seconds["precompute"], "s"),
                Measurement(f"{name}_verdict_seconds", seconds["audit"], "s"),
                *(Measurement(f"{name}_{part}_seconds", value, "s") for part, value in parts.items()),
            ]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
