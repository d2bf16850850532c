"""The verb `sae convert`: any dictionary that is read, written in Gemma Scope 2's layout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ft_audit.sae.info_command import REF_HELP


def add_convert(verbs: Any) -> None:
    """Add the verb to those of `sae`."""
    convert = verbs.add_parser("convert", help="write a dictionary in Gemma Scope 2's layout")
    convert.add_argument("src", metavar="SRC", help=REF_HELP)
    convert.add_argument("dst", type=Path, metavar="DST", help="the folder to write")
    convert.add_argument("--dtype", choices=("keep", "bfloat16"), default="keep", help="round the matrices")
    convert.add_argument("--hook", metavar="SITE/LAYER", help="what it reads, where its files do not say")
    convert.add_argument("--model", metavar="NAME", help="the model it belongs to, whatever its files say")
    convert.add_argument("--name", help="the name that everything of it is stored under")
    convert.add_argument(
        "--threshold",
        type=Path,
        metavar="FROM_ACTIVATIONS",
        help="approximate TopK by the threshold that fits these activations (.npy or .safetensors)",
    )
    convert.add_argument("--json", action="store_true", help="print one JSON object")
    convert.set_defaults(func=_convert)


def _convert(args: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from ft_audit.sae.formats.build import Told
    from ft_audit.sae.formats.gemma_scope import folded, save_gemma_scope
    from ft_audit.sae.load import load_sae
    from ft_audit.sae.rounding import rounded_to_bfloat16
    from ft_audit.sae.threshold import by_threshold, read_activations

    sae = load_sae(args.src, Path.cwd(), told=Told(args.hook, args.model))
    extra: dict[str, Any] = {}
    if args.threshold is not None:
        sae, found = by_threshold(sae, read_activations(args.threshold))
        extra["threshold_approximation"] = asdict(found)
    if args.dtype == "bfloat16":
        sae = rounded_to_bfloat16(sae)
    sae = folded(sae)
    if args.name is not None:
        sae = replace(sae, spec=replace(sae.spec, name=args.name))
    save_gemma_scope(args.dst, sae, extra)
    told = {"out": str(args.dst), "name": sae.spec.name, "sha256": sae.spec.sha256, **extra}
    if args.json:
        print(json.dumps(told))
        return 0
    print(f"{sae.spec.name!r} written to {args.dst} (sha256 {sae.spec.sha256})")
    for key, value in extra.get("threshold_approximation", {}).items():
        print(f"{key:18} {value}")
    return 0
