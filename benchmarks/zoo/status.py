"""What of a zoo is built, and what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ft_audit.benchmarks.zoo.build import audit_of, is_built, measured_sha256, summary_path
from ft_audit.benchmarks.zoo.population import load_zoo, members
from ft_audit.engine.text_table import text_table


def status(path: Path, out: Path, overrides: Sequence[str] = (), only: str | None = None) -> dict[str, Any]:
    """Return, for every member of a zoo, whether it is built and what its gate said."""
    zoo = load_zoo(path, overrides)
    measured = measured_sha256(audit_of(zoo))
    found = []
    for member in members(zoo):
        if only is not None and only not in member.name:
            continue
        entry: dict[str, Any] = {
            "name": member.name,
            "family": member.recipe.family,
            "kind": member.recipe.kind,
            "built": is_built(member, out, measured),
        }
        if entry["built"]:
            origin = json.loads(summary_path(member.name, out).read_text(encoding="utf-8"))["origin"]
            gate = origin["gate"]
            entry["gate"] = None if gate is None else gate["passed"]
            entry["checks"] = [
                f"{c['name']} {c['tuned']}/{c['num_prompts']} (base {c['base']})"
                for c in (gate or {"checks": []})["checks"]
            ]
        found.append(entry)
    return {"zoo": zoo.name, "members": found, "built": sum(entry["built"] for entry in found)}


def status_text(found: dict[str, Any]) -> str:
    """Return the status as a table for the terminal."""
    words = {True: "passed", False: "failed", None: "-"}
    rows = [
        [
            entry["name"],
            entry["family"],
            entry["kind"],
            words[entry.get("gate")] if entry["built"] else "not built",
            "; ".join(entry.get("checks", [])),
        ]
        for entry in found["members"]
    ]
    table = text_table(("member", "family", "kind", "gate", "checks"), rows)
    return f"{table}\n{found['built']} of {len(found['members'])} built"
