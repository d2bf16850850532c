"""The reader's verbs, from `audit` to `serve` and `sae show`; none needs a model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ft_audit.agent.export.commands import add_export, add_index
from ft_audit.agent.label_commands import add_label_commands as add_label_commands
from ft_audit.agent.server.commands import add_serve

CONFIG_HELP = "the audit's YAML file; configs:NAME names a shipped one"
OVERRIDES_HELP = "key=value in the place of what the file says, with dots: audit.top=5"
AUDIT_EPILOG = """\
exit codes: 0 the risk is below the threshold, 10 at or above it, 3 inconclusive or uncalibrated,
1 every error
"""


def add_commands(subparsers: Any) -> None:
    """Add the reader's verbs to the front door."""
    audit = subparsers.add_parser(
        "audit",
        help="judge the evidence: verdict.json and report.html",
        epilog=AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    audit.add_argument("--investigator", choices=("statistics", "openai"), help="who draws the conclusions")
    audit.set_defaults(func=_audit)

    top = subparsers.add_parser("top", help="the leading differences as a table in the terminal")
    top.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    top.add_argument("--limit", type=_count, metavar="N", help="how many of each (default: audit.top)")
    top.set_defaults(func=_top)

    report = subparsers.add_parser("report", help="render the report of a verdict again")
    report.add_argument("config", metavar="CONFIG|VERDICT", help=f"a verdict.json, or {CONFIG_HELP}")
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write it (default: beside the verdict)"
    )
    report.set_defaults(func=_report)

    verify = subparsers.add_parser(
        "verify", help="ask again for everything that a verdict cites, and compare"
    )
    verify.add_argument("verdict", metavar="VERDICT", help="a verdict.json, in a store or beside it")
    verify.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")
    verify.set_defaults(func=_verify)

    for verb in (audit, top, report):
        _add_shared(verb)
    _add_shared(add_export(subparsers))
    add_index(subparsers)
    add_serve(subparsers)


def add_sae_commands(verbs: Any) -> None:
    """Add what the reader's side knows of dictionaries to the verbs of `sae`."""
    show = verbs.add_parser("show", help="one feature: label, tests, activations and contexts in both models")
    show.add_argument("feature", type=int, metavar="FEATURE", help="its number in the dictionary")
    show.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    show.add_argument("--sae", metavar="NAME", help="of this dictionary (default: the only one)")
    show.add_argument("--suite", metavar="NAME", help="on this suite (default: where it changed most)")
    show.set_defaults(func=_show)
    _add_shared(show)


def _add_shared(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
    verb.add_argument("--diff", metavar="ID", help="this diff of the store, not the config's newest")
    verb.add_argument("--json", action="store_true", help="print one JSON object on stdout, for machines")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number of at least 1")
    return number


def _audit(args: argparse.Namespace) -> int:
    from ft_audit.agent.audit import exit_code, run_audit
    from ft_audit.agent.terminal import audit_text
    from ft_audit.engine.config import load_config

    chosen = [f"audit.investigator={args.investigator}"] if args.investigator else []
    audit = run_audit(load_config(args.config, [*args.overrides, *chosen]), args.diff)
    if audit.num_older:
        print(f"audit: the newest of {audit.num_older + 1} diffs of this config is judged", file=sys.stderr)
    if audit.num_waiting:
        print(
            f"audit: {audit.num_waiting} requested prompts or suites are not answered yet: run `ft-audit "
            "precompute CONFIG --requests`, then this again",
            file=sys.stderr,
        )
    verdict, code = audit.verdict, exit_code(audit.verdict)
    if args.json:
        left_out = {"config", "explanation"}
        paths = {"verdict": audit.verdict_file, "report": audit.report_file}
        fields = verdict.model_dump(mode="json", exclude=left_out)
        print(json.dumps({**fields, "paths": paths, "exit_code": code}, allow_nan=False))
    else:
        print(audit_text(audit))
    return code


def _top(args: argparse.Namespace) -> int:
    from ft_audit.agent.find import find_evidence
    from ft_audit.agent.leading import leading_json
    from ft_audit.agent.terminal import top_text
    from ft_audit.engine.config import load_config

    config = load_config(args.config, args.overrides)
    evidence = find_evidence(config, args.diff).evidence
    limit = args.limit or config.audit.top
    print(json.dumps(leading_json(evidence, limit)) if args.json else top_text(evidence, limit))
    return 0


def _show(args: argparse.Namespace) -> int:
    from ft_audit.agent.feature_text import feature_text
    from ft_audit.agent.feature_view import only_dictionary, view_feature
    from ft_audit.agent.find import find_evidence
    from ft_audit.agent.leading import as_json
    from ft_audit.engine.config import load_config

    evidence = find_evidence(load_config(args.config, args.overrides), args.diff).evidence
    view = view_feature(evidence, args.sae or only_dictionary(evidence), args.feature, args.suite)
    print(json.dumps(as_json(view)) if args.json else feature_text(view))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ft_audit.agent.audit import read_verdict
    from ft_audit.agent.audit_file import AuditFile
    from ft_audit.agent.verify import auditor_of, verify

    verdict = read_verdict(AuditFile(args.verdict))
    checks = verify(verdict, auditor_of(verdict))
    failed = [check for check in checks if not check.holds]
    if args.json:
        found = {"checked": len(checks), "failed": [check.model_dump() for check in failed]}
        print(json.dumps(found))
    else:
        print(*(f"differs  {check.what}: {check.now}" for check in failed), sep="\n", end="\n" * bool(failed))
        print(f"{len(checks) - len(failed)} of {len(checks)} readings give what the verdict says")
    return 1 if failed else 0


def _report(args: argparse.Namespace) -> int:
    from ft_audit.agent.audit import render_again, verdict_of
    from ft_audit.agent.audit_file import AuditFile
    from ft_audit.engine.config import load_config

    if args.config.endswith(".json"):
        file = AuditFile(args.config)
    else:
        file = verdict_of(load_config(args.config, args.overrides), args.diff)
    written = render_again(file, args.out)
    said = {"report": written, "verdict": file.location}
    print(json.dumps(said) if args.json else f"report   {written}")
    return 0
