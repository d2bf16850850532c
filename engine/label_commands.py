"""The verbs of `labels` that need models or the network: `labels build` and `labels fetch`."""

import argparse
import contextlib
import json
import sys
from typing import Any

CONFIG_HELP = "the audit's YAML file; configs:NAME names a shipped one"
OVERRIDES_HELP = "key=value in the place of what the file says, with dots: labels.neuronpedia.bulk=FOLDER"
FEATURES_HELP = "numbers with commas between them, or all (default: those that lead in the diff)"


def add_labels(subparsers: Any) -> Any:
    """Add the verb `labels` to the front door and return its verbs, to which other rooms may add."""
    labels = subparsers.add_parser("labels", help="what features stand for, and how far to trust it")
    verbs = labels.add_subparsers(metavar="VERB", required=True)

    build = verbs.add_parser("build", help="label features from their own contexts and the unembedding")
    build.set_defaults(func=_build)
    fetch = verbs.add_parser("fetch", help="store the labels that Neuronpedia has of these dictionaries")
    fetch.add_argument("--offline", action="store_true", help="only what is in the cache, asking nobody")
    fetch.set_defaults(func=_fetch)

    for verb in (build, fetch):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
        verb.add_argument("--features", metavar="LIST", help=FEATURES_HELP)
        verb.add_argument("--diff", metavar="ID", help="this diff of the store, not the config's newest")
        verb.add_argument("--no-progress", action="store_true", help="no progress on stderr")
        verb.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")
    return verbs


def _build(args: argparse.Namespace) -> int:
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    with contextlib.redirect_stdout(sys.stderr):
        from ft_audit.engine.labels.build import run_labels_build

        result = run_labels_build(config, args.diff, args.features, progress=not args.no_progress)
    _print(args, result)
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    with contextlib.redirect_stdout(sys.stderr):
        from ft_audit.engine.labels.fetch import run_labels_fetch

        result = run_labels_fetch(
            config, args.diff, args.features, offline=args.offline, progress=not args.no_progress
        )
    _print(args, result)
    return 0


def _print(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return
    for name, counts in result["dictionaries"].items():
        said = ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in counts.items())
        print(f"{name}: {said}")
