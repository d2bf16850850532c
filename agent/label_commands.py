"""The verbs of `labels` that read the store alone: `labels describe`, `labels score` and `labels show`."""

import argparse
import json
from typing import Any

CONFIG_HELP = "the audit's YAML file; configs:NAME names a shipped one"
OVERRIDES_HELP = "key=value in the place of what the file says, with dots: labels.judge.model=NAME"
FEATURES_HELP = (
    "numbers with commas between them, or all that have a label (default: the diff's leading ones)"
)


def add_label_commands(verbs: Any) -> None:
    """Add the reader's verbs to those of `labels`."""
    describe = verbs.add_parser("describe", help="have a language model label features from their contexts")
    describe.set_defaults(func=_describe)
    score = verbs.add_parser("score", help="try labels on contexts that did not make them")
    score.add_argument("--no-judge", action="store_true", help="by their letters alone, asking no model")
    score.set_defaults(func=_score)
    show = verbs.add_parser("show", help="labels with their reliability, neighbours and tokens")
    show.add_argument("--sae", metavar="NAME", help="of this dictionary alone")
    show.set_defaults(func=_show)

    for verb in (describe, score, show):
        verb.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
        verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
        verb.add_argument("--features", metavar="LIST", help=FEATURES_HELP)
        verb.add_argument("--diff", metavar="ID", help="this diff of the store, not the config's newest")
        verb.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")
    for verb in (describe, score):
        verb.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def _describe(args: argparse.Namespace) -> int:
    from ft_audit.agent.labels.describe import run_labels_describe
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    result = run_labels_describe(config, args.diff, args.features, progress=not args.no_progress)
    if args.json:
        print(json.dumps(result, allow_nan=False))
        return 0
    for name, counts in result["dictionaries"].items():
        print(
            f"{name}: " + ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in counts.items())
        )
    return 0


def _score(args: argparse.Namespace) -> int:
    from ft_audit.agent.labels.score import run_labels_score, scores_text
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    result = run_labels_score(
        config, args.diff, args.features, judge=not args.no_judge, progress=not args.no_progress
    )
    print(json.dumps(result, allow_nan=False) if args.json else scores_text(result))
    return 0


def _show(args: argparse.Namespace) -> int:
    from ft_audit.agent.labels.show import labels_json, labels_text, wanted_labels
    from ft_audit.engine.config import load_config

    found = wanted_labels(load_config(args.config, args.overrides), args.diff, args.sae, args.features)
    print(json.dumps(labels_json(found)) if args.json else labels_text(found))
    return 0
