"""What detection costs: each tier of evidence with the seconds of an audit that stops after it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ft_audit.agent.detectors.scalar import COSTS, Cost
from ft_audit.errors import DataError

PARTS: dict[Cost, tuple[str, ...]] = {
    "texts": ("texts",),
    "weights": ("weights",),
    "forward": ("forward", "statistics"),
    "answers": ("answers",),
}
"""Which parts of an audit's ledger a tier adds."""
AUDIT = "cached_base"


def audit_seconds(report: Path) -> dict[str, float]:
    """Return the seconds by part of an audit whose base is in the store, from its benchmark's report.

    Raises:
        DataError: the report is not one of `ft_audit.benchmarks.audit`.
    """
    names = {f"{AUDIT}_{part}_seconds": part for parts in PARTS.values() for part in parts}
    figures = json.loads(report.read_text(encoding="utf-8"))["figures"]
    found = {names[f["name"]]: float(f["value"]) for f in figures if f["name"] in names}
    if len(found) < len(names):
        raise DataError(f"{report}: not a report of ft_audit.benchmarks.audit; run it again")
    return found


def per_second(ways: Mapping[str, dict[str, Any]], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each tier with what an audit has taken by its end, and how well it detects."""
    found, total = [], 0.0
    for cost in COSTS:
        total += sum(seconds[part] for part in PARTS[cost])
        found.append({"up_to": cost, "seconds": total, "auroc": ways[f"up to {cost}"]["auroc"]})
    return found
