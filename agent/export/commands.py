"""The command line of what leaves the tool: `ft-audit export` and `ft-audit index`."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

FORMATS = ("json", "sarif", "inspect")


def add_export(subparsers: Any) -> argparse.ArgumentParser:
    """Add the verb `export` and return its parser, for what the verbs share."""
    export = subparsers.add_parser("export", help="a verdict as JSON, SARIF or an Inspect log")
    export.add_argument("config", metavar="VERDICT|CONFIG", help="a verdict.json, or the audit's YAML file")
    export.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    export.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: stdout)")
    export.set_defaults(func=run_export)
    parser: argparse.ArgumentParser = export
    return parser


def add_index(subparsers: Any) -> None:
    """Add the verb `index`."""
    index = subparsers.add_parser("index", help="one page over the verdicts of many audits")
    index.add_argument("roots", nargs="+", metavar="STORE|FOLDER", help="where to look for verdicts")
    index.add_argument(
        "--out", type=Path, default=Path("index.html"), metavar="FILE", help="where to write it (index.html)"
    )
    index.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")
    index.set_defaults(func=run_index)


def run_export(args: argparse.Namespace) -> int:
    """Write the export, or print it; every format is JSON, so `--json` changes only what `--out` reports."""
    from ft_audit.agent.audit import read_verdict, verdict_of
    from ft_audit.agent.audit_file import AuditFile
    from ft_audit.engine.config import load_config

    if args.config.endswith(".json"):
        file = AuditFile(args.config)
    else:
        file = verdict_of(load_config(args.config, args.overrides), args.diff)
    text = _text(args.format, read_verdict(file), file)
    if args.out is None:
        print(text, end="")
        return 0
    AuditFile(str(args.out)).write(text.encode())
    said = {"export": str(args.out), "format": args.format, "verdict": file.location}
    print(json.dumps(said) if args.json else f"export   {args.out}")
    return 0


def run_index(args: argparse.Namespace) -> int:
    """Write the page; a verdict that cannot be read is named there and on stderr."""
    from ft_audit.agent.audit_file import AuditFile
    from ft_audit.agent.export.collect import collect
    from ft_audit.agent.export.index_page import render_index

    found = collect(args.roots)
    AuditFile(str(args.out)).write(render_index(found, args.out.resolve().parent).encode())
    for one in found.unread:
        print(f"index: not read: {one.location!a}", file=sys.stderr)
    unread = [one._asdict() for one in found.unread]
    said = {"index": str(args.out), "verdicts": len(found.listed), "unread": unread}
    counts = f"{len(found.listed)} verdicts, {len(unread)} not read"
    print(json.dumps(said) if args.json else f"index    {args.out}  ({counts})")
    return 0


def _text(kind: str, verdict: Any, file: Any) -> str:
    from ft_audit.agent.audit import verdict_text
    from ft_audit.agent.export.inspect_log import inspect_text
    from ft_audit.agent.export.sarif import sarif_text
    from ft_audit.agent.investigators.transcript import Transcript, names
    from ft_audit.engine.store import Store
    from ft_audit.errors import StoreError

    if kind == "json":
        return verdict_text(verdict)
    if kind == "sarif":
        return sarif_text(verdict)
    transcripts = []
    if verdict.assessment is not None:
        try:
            store = file.store
        except StoreError:
            # A verdict that was copied elsewhere: its transcript stayed where it was written.
            store = Store(verdict.store)
        numbers = [one.number for one in verdict.assessment.audits]
        transcripts = [Transcript.open(store, verdict.audit_id, name) for name in names(numbers)]
    return inspect_text(verdict, transcripts, file.modified() or time.time())
