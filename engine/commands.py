"""The engine's verbs: precompute, finetune, store, doctor, and what of labels needs models."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ft_audit.engine.label_commands import add_labels
from ft_audit.errors import ConfigError, MissingExtraError

CONFIG_HELP = "the audit's YAML file; configs:NAME names a shipped one"
OVERRIDES_HELP = "key=value in the place of what the file says, with dots: audit.top=5"


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return which extra brings the module that a verb of any room could not import."""
    from ft_audit.engine import extras

    return extras.missing_extra(error)


def add_commands(subparsers: Any) -> Any:
    """Add the engine's verbs to the front door and return those of `labels`, to which other rooms may add."""
    precompute = subparsers.add_parser("precompute", help="run both models once and keep the evidence")
    precompute.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    precompute.add_argument("--scheduler", metavar="ADDRESS", help="a dask cluster to work on: tcp://...")
    precompute.add_argument(
        "--requests", action="store_true", help="answer what investigators asked for, and nothing else"
    )
    precompute.add_argument("--diff", metavar="ID", help="of --requests: this diff, not the config's newest")
    precompute.set_defaults(func=_precompute)

    finetune = subparsers.add_parser("finetune", help="train what a recipe describes, and test its gate")
    finetune.add_argument(
        "recipe", metavar="RECIPE", help="the recipe's YAML file; configs:recipes/NAME.yaml is shipped"
    )
    finetune.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the result is written"
    )
    finetune.add_argument("--data-only", action="store_true", help="build the data set and train nothing")
    finetune.set_defaults(func=_finetune)

    for verb in (precompute, finetune):
        verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
        verb.add_argument("--no-progress", action="store_true", help="no progress on stderr")
        _add_json(verb)

    doctor = subparsers.add_parser("doctor", help="what this machine can run, and why not the rest")
    doctor.set_defaults(func=_doctor)
    _add_json(doctor)
    _add_store(subparsers)
    return add_labels(subparsers)


def _add_store(subparsers: Any) -> None:
    store = subparsers.add_parser("store", help="what is stored, whether it is whole, what may go")
    verbs = store.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("ls", help="list runs, diffs and audits")
    listing.set_defaults(func=_store_ls)
    verify = verbs.add_parser("verify", help="read everything and compare the checksums")
    verify.set_defaults(func=_store_verify)
    gc = verbs.add_parser("gc", help="show what may go, or delete it")
    gc.add_argument("--delete", action="store_true", help="delete what is shown")
    gc.add_argument(
        "--days", type=float, default=1.0, help="leave what changed in the last DAYS days (default: 1)"
    )
    gc.set_defaults(func=_store_gc)
    for verb in (listing, verify, gc):
        verb.add_argument(
            "store", nargs="?", metavar="STORE", help="the store's folder, or a config that names it"
        )
        _add_json(verb)


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")


def _precompute(args: argparse.Namespace) -> int:
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    if args.requests:
        return _requests(args, config)
    if args.diff is not None:
        raise ConfigError(
            "--diff names whose requests are answered: give --requests as well, or leave it out"
        )
    with stdout_is_ours(), progress_shown(args):
        from ft_audit.engine.precompute import run_precompute

        result = run_precompute(config, progress=not args.no_progress, scheduler=args.scheduler)
    print_result(args, result)
    return 0


def _requests(args: argparse.Namespace, config: Any) -> int:
    if args.scheduler is not None:
        raise ConfigError("--requests are answered in this process: leave --scheduler out")
    with stdout_is_ours(), progress_shown(args):
        from ft_audit.engine.precompute.requested import answer_requests

        result = answer_requests(config, args.diff, progress=not args.no_progress)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        for one in result.pop("requests"):
            name = f" ({one['name']})" if "name" in one else ""
            reason = one.get("reason", "").encode("unicode_escape").decode()
            print(f"{one['id']}{name}: {one['state']}{': ' if reason else ''}{reason}")
        print_result(args, result)
    return 1 if result["num_failed"] else 0


def _finetune(args: argparse.Namespace) -> int:
    from ft_audit.engine.config import find_config

    recipe = find_config(args.recipe)
    with stdout_is_ours(), progress_shown(args):
        from ft_audit.engine.finetune import run_finetune

        options: dict[str, Any] = {"data_only": True} if args.data_only else {}
        result = run_finetune(recipe, args.out, args.overrides, progress=not args.no_progress, **options)
    print_result(args, result)
    # A fine-tune that did not take is no result: a script that goes on must be told.
    return 0 if (result.get("gate") or {}).get("passed", True) else 1


def _doctor(args: argparse.Namespace) -> int:
    with stdout_is_ours():
        from ft_audit.engine.doctor import examine, render

        report = examine()
    print(json.dumps(report, allow_nan=False) if args.json else render(report))
    return 0


def _store_ls(args: argparse.Namespace) -> int:
    from ft_audit.engine.store_report import list_report, render_list

    report = list_report(args.store)
    print(json.dumps(report, allow_nan=False) if args.json else render_list(report))
    return 0


def _store_verify(args: argparse.Namespace) -> int:
    from ft_audit.engine.store_report import render_verify, verify_report

    report = verify_report(args.store)
    print(json.dumps(report, allow_nan=False) if args.json else render_verify(report))
    return 1 if report["problems"] else 0


def _store_gc(args: argparse.Namespace) -> int:
    from ft_audit.engine.store_report import gc_report, render_gc

    report = gc_report(args.store, args.days, delete=args.delete)
    print(json.dumps(report, allow_nan=False) if args.json else render_gc(report))
    return 0


@contextlib.contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Send what libraries print to stderr: on stdout stands the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def progress_shown(args: argparse.Namespace) -> Iterator[None]:
    """Keep the bars of transformers off stderr too, if no progress is wanted."""
    if not args.no_progress:
        yield
        return
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def print_result(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print a verb's result: one JSON object, or a fact a line."""
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return
    facts = dict(_flat(result, ""))
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {value}")


def _flat(value: dict[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", f"{inner:,.4g}" if isinstance(inner, float) else str(inner)
