"""How fast is our sparse encode? Every path of ours, the peers as they ship and the bare product, in turn.

Shapes: T tokens of one call, D width of the residual stream, F features.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from ft_audit.benchmarks.encoding import cases as plans
from ft_audit.benchmarks.encoding import ours
from ft_audit.benchmarks.encoding.case import Case
from ft_audit.benchmarks.encoding.check import Accuracy, check_repeats, compare, make_reference
from ft_audit.benchmarks.encoding.memory import can_measure, peaks
from ft_audit.benchmarks.encoding.race import Times, race
from ft_audit.benchmarks.encoding.way import Operands, Way, WayMissing, num_bytes
from ft_audit.benchmarks.encoding.ways import build_way, chunk_rows, way_names
from ft_audit.benchmarks.harness import Measurement, load_asked, run_benchmark
from ft_audit.engine.models.load import pick_device

CPU_ROWS, CUDA_ROWS = 1024, 4 * 132 * 128
CUDA_ROUNDS, QUICK_ROUNDS = 30, 3
CPU_ROUNDS = {16_384: 9, 65_536: 4}  # up to such widths; a round of the peers takes seconds at the wider
WIDEST_ROUNDS = 2
MEMORY_CASES = {
    "cpu": ("synthetic-1152/65k-drawn",),
    "cuda": ("synthetic-1152/65k-drawn", "synthetic-1152/262k-drawn"),
}
MEMORY_ROWS = (1024, 8192, 32_768)
MEMORY_PEERS = ("saelens-fp32", "saelens-bf16", "delphi-bf16", "torch-1024-DF-2d")
BEST_TORCH, BARE_GEMM = "best_torch", "bare_gemm"
MB = 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    return run_benchmark("encode", measure, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--quick", action="store_true", help="three shapes, few rounds, no memory")
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto takes cuda where it is")
    parser.add_argument("--rows", type=int, help=f"tokens a call ({CPU_ROWS} on a CPU, {CUDA_ROWS} on a GPU)")
    parser.add_argument("--rounds", type=int, help="rounds that are timed")
    parser.add_argument("--widths", type=int, nargs="+", help="these widths for every source of residuals")
    parser.add_argument("--only", nargs="+", metavar="SOURCE", help="these sources of residuals alone")
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="NAME=REF@LAYER", help="residuals of further models"
    )
    parser.add_argument("--tune", action="store_true", help="on a GPU: every plan that tuning tries")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Every figure of the run; asked ones that this device or these options do not give say so."""
    device = pick_device(options.device)
    cuda = device.type == "cuda"
    num_rows = options.rows or (CUDA_ROWS if cuda else CPU_ROWS)
    with_memory = not (options.quick or options.no_memory)
    prefix = device_key(device)
    found = [Measurement(f"{prefix}/threads", torch.get_num_threads(), "threads")]
    with torch.inference_mode():
        for case in plans.cases(_plan(options, cuda), _models(options), num_rows, device):
            rounds = options.rounds or default_rounds(case.weights.num_features, cuda, quick=options.quick)
            measured = measure_case(case, rounds, every_plan=options.tune)
            found += [_under(prefix, case.name, figure) for figure in measured]
            if with_memory and case.name in MEMORY_CASES[device.type]:
                found += [_under(prefix, case.name, figure) for figure in measure_memory(case)]
    return found + unmeasured("encode", {figure.name for figure in found}, prefix)


def default_rounds(width: int, cuda: bool, *, quick: bool) -> int:
    """How many rounds are timed where none are asked for."""
    if quick or cuda:
        return QUICK_ROUNDS if quick else CUDA_ROUNDS
    return next((rounds for widest, rounds in CPU_ROUNDS.items() if width <= widest), WIDEST_ROUNDS)


def device_key(device: torch.device) -> str:
    """What figures of this device begin with: `cpu`, `h200`, or `cuda` for any other GPU."""
    if device.type != "cuda":
        return device.type
    return "h200" if "H200" in torch.cuda.get_device_name(device) else "cuda"


def unmeasured(benchmark: str, measured: set[str], prefix: str) -> list[Measurement]:
    """The asked figures of a benchmark that are missing, each with its reason."""
    return [
        Measurement(
            name,
            None,
            row.unit,
            "not among the chosen shapes" if name.startswith(f"{prefix}/") else "no such device here",
        )
        for name, row in load_asked(benchmark).items()
        if name not in measured
    ]


def measure_case(case: Case, rounds: int, *, every_plan: bool = False) -> Iterator[Measurement]:
    """One case: every way checked, then all of them timed in turn; raises where ours is wrong."""
    device, num_rows, width = case.x_TD.device, case.num_rows, case.weights.num_features
    print(f"{case.name}: {case.label}, {num_rows} rows a call", file=sys.stderr, flush=True)
    reference = make_reference(case)
    yield Measurement("rows", num_rows, "tokens")
    yield Measurement("l0", reference.l0, "features/token")
    operands, chunk = Operands(case.weights), chunk_rows(device, num_rows, width)
    ways: dict[str, Way] = {}
    missing: dict[str, str] = {}
    accuracy: dict[str, Accuracy] = {}
    size: dict[str, float] = {}
    for name in way_names(device, num_rows, width, every_plan=every_plan):
        try:
            way = build_way(name, operands, chunk, max(1, round(reference.l0)))
            result = way.encode(case.x_TD)
        except WayMissing as error:
            missing[name] = str(error)
            continue
        ways[name] = way
        size[name] = num_bytes(result) / num_rows
        if way.read is not None:
            accuracy[name] = compare(way, result, reference, num_rows)
        if way.kind == "ours":
            check_repeats(way, result, way.encode(case.x_TD))
    del reference
    calls = {name: partial(way.encode, case.x_TD) for name, way in ways.items()}
    times = race(calls, rounds, device)
    _show(ways, times, accuracy, num_rows)
    yield from figures(times, accuracy, size, missing, num_rows)


def figures(
    times: dict[str, Times],
    accuracy: dict[str, Accuracy],
    size: dict[str, float],
    missing: dict[str, str],
    num_rows: int,
) -> Iterator[Measurement]:
    """Rates, ratios of least times, flips and bytes of every way; of the variants that lost, rates alone."""
    best = {
        BEST_TORCH: _quickest(times, "torch-"),
        BARE_GEMM: _quickest(times, "gemm-"),
    }
    ours_least = times[ours.DEFAULT].least
    for name in missing:
        yield Measurement(f"vs_{_figure(name)}", None, "x", missing[name])
    for name, spent in times.items():
        if not name.startswith((ours.DEFAULT, "gemm-", "torch-")):
            yield Measurement(f"vs_{_figure(name)}", spent.least / ours_least, "x")
    yield Measurement(f"vs_{BEST_TORCH}", times[best[BEST_TORCH]].least / ours_least, "x")
    yield Measurement(f"share_of_{BARE_GEMM}", times[best[BARE_GEMM]].least / ours_least, "ratio")
    for name, spent in times.items():
        yield Measurement(f"{name}/rate", num_rows / spent.least, "tokens/s")
        if name.startswith(("gemm-", "torch-")) and name not in best.values():
            continue
        yield Measurement(f"{name}/median_rate", num_rows / spent.median, "tokens/s")
        if name in accuracy:
            yield Measurement(f"{name}/flips", accuracy[name].flips_per_token, "features/token")
            yield Measurement(f"{name}/result", size[name], "bytes/token")


def measure_memory(case: Case) -> Iterator[Measurement]:
    """Peak memory of ours over several numbers of tokens, and of the peers over the smallest."""
    device = case.x_TD.device
    if not can_measure(device):
        yield Measurement("extra_memory", None, "MB", "no resettable peak memory on this platform")
        return
    found = peaks(case, ours.DEFAULT, MEMORY_PEERS, MEMORY_ROWS)
    for (name, num_rows), memory in found.items():
        yield Measurement(f"{name}/extra_memory_{num_rows}", memory.extra / MB, "MB")
        yield Measurement(f"{name}/prepared_memory_{num_rows}", memory.prepared / MB, "MB")
    most = max(memory.extra for (name, _), memory in found.items() if name == ours.DEFAULT)
    yield Measurement("extra_memory", most / MB, "MB")
    dense = MEMORY_ROWS[-1] * case.weights.num_features * 2
    yield Measurement("extra_share_of_dense", found[ours.DEFAULT, MEMORY_ROWS[-1]].extra / dense, "ratio")


def _quickest(times: dict[str, Times], start: str) -> str:
    return min((name for name in times if name.startswith(start)), key=lambda name: times[name].least)


def _figure(name: str) -> str:
    return name.replace("-", "_")


def _under(prefix: str, case: str, figure: Measurement) -> Measurement:
    return Measurement(f"{prefix}/{case}/{figure.name}", figure.value, figure.unit, figure.reason)


def _models(options: argparse.Namespace) -> list[plans.ModelSource]:
    return [plans.parse_model(text) for text in options.models]


def _plan(options: argparse.Namespace, cuda: bool) -> dict[str, tuple[int, ...]]:
    plan = dict(plans.QUICK if options.quick else plans.CUDA if cuda else plans.CPU)
    plan |= {model.name: plans.MODEL_WIDTHS for model in _models(options)}
    if options.only:
        plan = {name: widths for name, widths in plan.items() if name in options.only}
    if options.widths:
        plan = dict.fromkeys(plan, tuple(options.widths))
    return plan


def _show(
    ways: dict[str, Way], times: dict[str, Times], accuracy: dict[str, Accuracy], num_rows: int
) -> None:
    for name, spent in times.items():
        known, describe = accuracy.get(name), ways[name].describe
        beside = (
            ""
            if known is None
            else (
                f"  {known.flips_per_token:8.3f} flips/token  {known.undecided_per_token:.3f} undecided/token"
                f"  values within {known.largest_value_error:.1e}"
            )
        )
        chosen = "" if describe is None else f"  ({describe()})"
        print(
            f"  {name:24} {num_rows / spent.least:12,.0f} tokens/s{beside}{chosen}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
