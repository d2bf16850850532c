"""The command line of dictionaries: `sae train`, `sae info`, `sae convert`."""

from __future__ import annotations

from typing import Any

from ft_audit.sae.convert_command import add_convert
from ft_audit.sae.info_command import add_info
from ft_audit.sae.train_command import add_train


def add_commands(subparsers: Any) -> Any:
    """Add the verb `sae` to the front door and return its verbs, to which other rooms may add."""
    sae = subparsers.add_parser("sae", help="train, inspect and convert dictionaries")
    verbs = sae.add_subparsers(metavar="VERB", required=True)

    add_train(verbs)
    add_info(verbs)
    add_convert(verbs)
    return verbs
