"""The verbs of whole audits and of populations: benchmark, calibrate, and those of zoo."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from ft_audit.agent.tools.profiles import PROFILES
from ft_audit.engine.commands import print_result, progress_shown, stdout_is_ours
from ft_audit.errors import ConfigError

ZOO = "configs:zoo/smollm2-135m.yaml"
WORK = Path(".cache/zoo/finetunes")
RESULTS = Path("benchmarks/results/zoo")
AUDIT_COST = "audit-cpu.json"


def add_commands(subparsers: Any) -> None:
    """Add the verbs to the front door."""
    _add_calibrate(subparsers)
    _add_benchmark(subparsers)
    zoo = subparsers.add_parser("zoo", help="attack and benign fine-tunes on which detection is measured")
    verbs = zoo.add_subparsers(metavar="VERB", required=True)
    _add_build(verbs)
    _add_status(verbs)
    _add_evaluate(verbs)
    _add_bank(verbs)


def _add_calibrate(subparsers: Any) -> None:
    calibrate = subparsers.add_parser("calibrate", help="make a bank of benign fine-tunes for one's own base")
    calibrate.set_defaults(func=_calibrate)
    calibrate.add_argument("config", metavar="CONFIG", help="the calibration's YAML file")
    _add_overrides(calibrate)
    _add_no_progress(calibrate)
    _add_json(calibrate)


def _add_benchmark(subparsers: Any) -> None:
    benchmark = subparsers.add_parser(
        "benchmark", help="one audit from models to verdict, or detection over a population of them"
    )
    benchmark.set_defaults(func=_benchmark)
    asked = benchmark.add_mutually_exclusive_group(required=True)
    asked.add_argument("--config", metavar="CONFIG", help="the audit's YAML file, precomputed and judged")
    asked.add_argument(
        "--population", type=Path, metavar="FOLDER", help="summaries of fine-tunes, as `zoo build` keeps them"
    )
    benchmark.add_argument(
        "--investigator",
        choices=("statistics", "openai"),
        default="statistics",
        help="with --population: `openai` has the model of audit.agent.chat investigate each",
    )
    benchmark.add_argument(
        "--profile",
        action="append",
        default=[],
        choices=tuple(PROFILES),
        help="tools that the model has; repeat to compare (default: full)",
    )
    benchmark.add_argument(
        "--num-audits",
        action="append",
        default=[],
        type=int,
        metavar="N",
        help="investigations of each fine-tune; repeat to compare (default: 1)",
    )
    benchmark.add_argument("--only", metavar="TEXT", help="fine-tunes whose name holds the text")
    benchmark.add_argument("--zoo", default=ZOO, metavar="ZOO", help=f"the population's YAML file ({ZOO})")
    _add_work(benchmark)
    benchmark.add_argument(
        "--suite", action="append", default=[], metavar="REF", help="prompts in the place of the config's"
    )
    _add_overrides(benchmark)
    benchmark.add_argument("--out", type=Path, metavar="FILE", help="where the result is written as JSON")
    _add_no_progress(benchmark)
    _add_json(benchmark)


def _add_build(verbs: Any) -> None:
    build = verbs.add_parser("build", help="train and measure every member that has no summary yet")
    build.set_defaults(func=_build)
    _add_work(build)
    build.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the work")
    build.add_argument("--limit", type=int, metavar="N", help="only the first N members")
    build.add_argument("--most", type=int, metavar="N", help="build at most N members, then end")
    _add_no_progress(build)
    _add_only(build)
    _add_zoo(build)


def _add_status(verbs: Any) -> None:
    status = verbs.add_parser("status", help="what is built, and which gates were passed")
    status.set_defaults(func=_status)
    _add_only(status)
    _add_zoo(status)


def _add_evaluate(verbs: Any) -> None:
    evaluate = verbs.add_parser("evaluate", help="detection from the summaries: tables, intervals, plots")
    evaluate.set_defaults(func=_evaluate)
    evaluate.add_argument(
        "folder", nargs="?", type=Path, default=RESULTS / "smollm2-135m", help="where the summaries are"
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        help=f"where results are written, and {AUDIT_COST} of the audit's benchmark may lie",
    )
    _add_json(evaluate)


def _add_bank(verbs: Any) -> None:
    bank = verbs.add_parser("bank", help="write the bank of the zoo's benign fine-tunes")
    bank.set_defaults(func=_bank)
    bank.add_argument("--bank", type=Path, required=True, metavar="FILE", help="where the bank is written")
    _add_zoo(bank)


def _add_zoo(verb: argparse.ArgumentParser) -> None:
    """Add which population is meant, and where its summaries are."""
    verb.add_argument(
        "zoo", nargs="?", default=ZOO, metavar="ZOO", help=f"the population's YAML file (default: {ZOO})"
    )
    _add_overrides(verb)
    verb.add_argument("--out", type=Path, help="where summaries are kept (benchmarks/results/zoo/NAME)")
    _add_json(verb)


def _add_only(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--only", metavar="TEXT", help="members whose name holds the text")


def _add_work(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--work", type=Path, default=WORK, help=f"where members are trained ({WORK})")


def _add_overrides(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="in the place of what it says")


def _add_no_progress(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")


def _build(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.zoo.build import build
    from ft_audit.engine.config import find_config

    path = find_config(args.zoo)
    with stdout_is_ours(), progress_shown(args):
        result = build(
            path,
            args.work,
            _out(args, path),
            overrides=args.overrides,
            only=args.only,
            jobs=args.jobs,
            limit=args.limit,
            most=args.most,
            progress=not args.no_progress,
        )
    print_result(args, result)
    return 0 if result["summaries"] == result["members"] else 1


def _status(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.zoo.status import status, status_text
    from ft_audit.engine.config import find_config

    path = find_config(args.zoo)
    found = status(path, _out(args, path), args.overrides, args.only)
    print(json.dumps(found) if args.json else status_text(found))
    return 0


def _bank(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.zoo.bank import write_zoo_bank
    from ft_audit.benchmarks.zoo.population import load_zoo
    from ft_audit.engine.config import find_config

    path = find_config(args.zoo)
    result = write_zoo_bank(load_zoo(path, args.overrides), _out(args, path), args.bank)
    print_result(args, result)
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.calibrate import run_calibrate
    from ft_audit.engine.config import find_config

    config = find_config(args.config)
    with stdout_is_ours(), progress_shown(args):
        result = run_calibrate(config, args.overrides, progress=not args.no_progress)
    print_result(args, result)
    return 0


def _benchmark(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.one_audit import audit_of_config
    from ft_audit.benchmarks.zoo.evaluate import evaluate
    from ft_audit.benchmarks.zoo.investigators import grid_text
    from ft_audit.benchmarks.zoo.table import detection_text

    if args.investigator == "openai":
        if args.population is None:
            raise ConfigError("--investigator openai compares on a population: name one with --population")
        with stdout_is_ours(), progress_shown(args):
            found, code = _investigate(args), 0
        text = grid_text(found)
    elif args.population is not None:
        found, code = evaluate(args.population), 0
        text = detection_text(found)
    else:
        with stdout_is_ours(), progress_shown(args):
            found, code, text = audit_of_config(
                args.config, args.suite, args.overrides, progress=not args.no_progress
            )
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(found, allow_nan=False) if args.json else text)
    return code


def _investigate(args: argparse.Namespace) -> dict[str, Any]:
    from ft_audit.benchmarks.zoo.cases import open_cases
    from ft_audit.benchmarks.zoo.investigators import Arm, Investigator, ask_model, by_statistics, grid
    from ft_audit.benchmarks.zoo.population import load_zoo

    zoo = load_zoo(args.zoo)
    cases = open_cases(zoo, args.population, args.work, args.work / "banks", args.overrides, args.only)
    arms = [Arm(profile, n) for profile in args.profile or ["full"] for n in args.num_audits or [1]]
    investigators: list[Investigator] = [by_statistics, *(partial(ask_model, arm=arm) for arm in arms)]
    found = grid(cases.found, investigators, progress=not args.no_progress)
    return {**found, "missing": cases.missing}


def _evaluate(args: argparse.Namespace) -> int:
    from ft_audit.benchmarks.zoo.evaluate import evaluate
    from ft_audit.benchmarks.zoo.report import write_report
    from ft_audit.benchmarks.zoo.table import detection_text

    cost = args.out / AUDIT_COST
    found = evaluate(args.folder, cost if cost.exists() else None)
    write_report(found, args.out)
    print(json.dumps(found) if args.json else detection_text(found))
    return 0


def _out(args: argparse.Namespace, path: Path) -> Path:
    return args.out or RESULTS / path.stem
