"""The command line of dictionaries: `sae train`, `sae info`, `sae convert`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ft_audit.sae.train_command import add_train, print_report


def add_commands(subparsers: Any) -> None:
    """Add the verb `sae` with its three verbs to the front door."""
    sae = subparsers.add_parser("sae", help="train, inspect and convert dictionaries")
    verbs = sae.add_subparsers(metavar="VERB", required=True)

    add_train(verbs)

    info = verbs.add_parser("info", help="show what a dictionary is and how well it was trained")
    info.add_argument("ref", metavar="REF", help="a folder, configs:REL, or OWNER/NAME/FOLDER on the hub")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(func=_info)

    convert = verbs.add_parser("convert", help="write a dictionary in Gemma Scope's layout")
    convert.add_argument("src", metavar="SRC", help="a folder, configs:REL, or OWNER/NAME/FOLDER on the hub")
    convert.add_argument("dst", type=Path, metavar="DST", help="the folder to write")
    convert.add_argument("--dtype", choices=("keep", "bfloat16"), default="keep", help="round the matrices")
    convert.add_argument("--json", action="store_true", help="print one JSON object")
    convert.set_defaults(func=_convert)


def _info(args: argparse.Namespace) -> int:
    import dataclasses

    from ft_audit.sae.load import find_sae, load_sae
    from ft_audit.sae.training_run import REPORT_FILE

    folder = find_sae(args.ref, Path.cwd())
    sae = load_sae(str(folder), Path.cwd())
    report_file = folder / REPORT_FILE
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else None
    told = {
        **dataclasses.asdict(sae.spec),
        "threshold_min": float(sae.threshold_F.min()),
        "threshold_max": float(sae.threshold_F.max()),
        "decoder_norm_mean": float(sae.w_dec_FD.norm(dim=1).mean()),
        "report": report,
    }
    if args.json:
        print(json.dumps(told))
        return 0
    for key, value in told.items():
        if key != "report":
            print(f"{key:18} {value}")
    if report is not None and "held_out" in report:  # another trainer's report has other keys
        print_report(report)
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ft_audit.sae.formats.gemma_scope import save_gemma_scope
    from ft_audit.sae.load import load_sae
    from ft_audit.sae.rounding import rounded_to_bfloat16

    sae = load_sae(args.src, Path.cwd())
    if args.dtype == "bfloat16":
        sae = rounded_to_bfloat16(sae)
    save_gemma_scope(args.dst, sae, {})
    told = {"out": str(args.dst), "name": sae.spec.name, "sha256": sae.spec.sha256}
    print(
        json.dumps(told) if args.json else f"{sae.spec.name} written to {args.dst} (sha256 {sae.spec.sha256})"
    )
    return 0
