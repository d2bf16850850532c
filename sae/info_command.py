"""The verb `sae info`: what a dictionary is, and how well it was trained where its trainer said so."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ft_audit.sae.train_command import print_report

REF_HELP = "a folder or file, configs:REL, OWNER/NAME/FOLDER on the hub, or saelens:RELEASE/SAE_ID"


def add_info(verbs: Any) -> None:
    """Add the verb to those of `sae`."""
    info = verbs.add_parser("info", help="show what a dictionary is and how well it was trained")
    info.add_argument("ref", metavar="REF", help=REF_HELP)
    info.add_argument("--examples", action="store_true", help="also fetch its published examples (800 MB)")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(func=_info)


def _info(args: argparse.Namespace) -> int:
    from ft_audit.sae.describe import describe
    from ft_audit.sae.load import find_sae, load_sae
    from ft_audit.sae.training_run import REPORT_FILE

    path = find_sae(args.ref, Path.cwd(), examples=args.examples)
    sae = load_sae(str(path.absolute()), Path.cwd())
    report_file = path / REPORT_FILE
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else None
    told = describe(path, sae)
    if args.json:
        print(json.dumps({**told, "report": report}))
        return 0
    for key, value in told.items():
        print(f"{key:18} {_printable(value)}")
    if report is not None and "held_out" in report:  # another trainer's report has other keys
        print_report(report)
    return 0


def _printable(value: object) -> str:
    """Names come out of strangers' files: nothing in them may steer the terminal."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
