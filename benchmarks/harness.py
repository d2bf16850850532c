"""What every benchmark shares: the bounds asked for, the report of where it ran and with what, the table."""

import argparse
import json
import operator
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

LIBRARIES = (
    "ft-audit", "torch", "transformers", "numpy", "numba", "zarr", "dask", "triton", "vllm",
    "sae-lens", "eai-sparsify",
)  # fmt: skip
COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class Asked(BaseModel):
    """One row of asked.yaml: the bound a figure is held to, its unit and what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bound: str
    unit: str
    means: str

    def holds(self, value: float) -> bool:
        """Whether the value keeps the bound, which reads like `>= 6` or `< 1.10`."""
        sign, _, limit = self.bound.partition(" ")
        return bool(COMPARISONS[sign](value, float(limit)))


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure as measured; `value` is None where it could not be measured, and `reason` then says why."""

    name: str
    value: float | None
    unit: str
    reason: str | None = None

    def __post_init__(self) -> None:
        assert self.value is not None or self.reason, f"{self.name} has neither a value nor a reason"


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement beside what was asked of it; `asked` and `holds` are None where nothing was."""

    name: str
    value: float | None
    unit: str
    asked: str | None
    holds: bool | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark writes: where it ran, with what, and its figures, every asked one among them."""

    device: str
    versions: dict[str, str]
    commit: str | None
    figures: tuple[Figure, ...]


def load_asked(benchmark: str, path: Path | None = None) -> dict[str, Asked]:
    """The asked figures of one benchmark by name, from asked.yaml beside this file; empty where none are."""
    source = path or resources.files("ft_audit.benchmarks").joinpath("asked.yaml")
    rows = TypeAdapter(dict[str, dict[str, Asked]]).validate_python(yaml.safe_load(source.read_text()))
    return rows.get(benchmark, {})


def compare(measurements: Sequence[Measurement], asked: dict[str, Asked]) -> tuple[Figure, ...]:
    """Every measurement beside its bound, asked ones first; asserts that no asked figure is left out."""
    by_name = {measurement.name: measurement for measurement in measurements}
    assert len(by_name) == len(measurements), "a figure was measured twice"
    missing = sorted(asked.keys() - by_name.keys())
    assert not missing, f"asked, but neither measured nor explained: {', '.join(missing)}"
    ordered = [by_name[name] for name in asked] + [m for m in measurements if m.name not in asked]
    return tuple(_figure(measurement, asked.get(measurement.name)) for measurement in ordered)


def _figure(measurement: Measurement, row: Asked | None) -> Figure:
    value = measurement.value
    holds = None if row is None or value is None else row.holds(value)
    bound = None if row is None else row.bound
    return Figure(measurement.name, value, measurement.unit, bound, holds, measurement.reason)


def describe_device() -> str:
    """The accelerator where torch sees one, else the processor and how many cores this process may use."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return f"mps: {platform.processor() or platform.machine()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu: {_cpu_name()}, {cores} cores"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Installed versions of Python and of the libraries that decide speed; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The checkout's commit, `+changes` appended where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def table(report: Report) -> str:
    """The figures as aligned lines of text under where and with what they were measured."""
    rows = [("figure", "value", "asked", "")]
    for figure in report.figures:
        value = "not measured" if figure.value is None else f"{figure.value:.4g} {figure.unit}".rstrip()
        mark = {None: "", True: "holds", False: "MISSED"}[figure.holds]
        rows.append((figure.name, value, figure.asked or "", " ".join(filter(None, (mark, figure.reason)))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{report.device} | commit {report.commit or 'unknown'}"]
    lines += [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def run_benchmark(
    name: str,
    measure: Callable[[argparse.Namespace], Sequence[Measurement]],
    argv: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Run one benchmark from its command line: measure, print the table, write the JSON; returns 0.

    `measure` checks that what it times is correct before it times it, and raises where it is not, so that
    no speed is ever reported of wrong results. A missed bound is reported, not an error.
    """
    parser = argparse.ArgumentParser(prog=f"python -m ft_audit.benchmarks.{name}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(argv)
    figures = compare(measure(options), load_asked(name))
    report = Report(describe_device(), versions(), commit(), figures)
    print(table(report))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(report), indent=2, allow_nan=False) + "\n")
    return 0
