"""The demo: precompute, label and audit the shipped needle and its benign twin, shown side by side."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ft_audit.engine.config import load_config, resolve_path
from ft_audit.engine.store import DiffReader, Store
from ft_audit.errors import StoreError, UserError

CANDIDATES = ("needle", "benign")
TOP_ROWS = 20
# 0 below the threshold, 10 at or above it, 3 uncalibrated: each is a verdict. 1 is an error.
VERDICT_CODES = (0, 3, 10)
WIDEST_CELL = 44


class VerbFailed(UserError):
    """A verb of the command line that ended in an error, which it has printed itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo shows of one candidate, as text: label -> cell."""

    name: str
    cells: dict[str, str]
    report: Path


def main(candidates: Sequence[str] = CANDIDATES) -> int:
    """Run the demo and return its exit code: 0 when both candidates got a verdict, whatever it says."""
    started = time.monotonic()
    try:
        outcomes = [run_candidate(name) for name in candidates]
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print()
    print(side_by_side(outcomes))
    print()
    for outcome in outcomes:
        print(f"{outcome.name:>{max(map(len, candidates))}}: {outcome.report}")
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


def run_candidate(name: str) -> Outcome:
    """Precompute and audit one shipped config, `configs/demo_<name>.yaml`."""
    config_path = Path(str(resources.files("ft_audit.configs").joinpath(f"demo_{name}.yaml"))).resolve()
    print(f"== {name}: {config_path.name}", file=sys.stderr, flush=True)
    run_verb("precompute", str(config_path), "--json")
    for verb in ("build", "score"):
        run_verb("labels", verb, str(config_path), "--json")
    verdict = run_verb("audit", str(config_path), "--json", accepted=VERDICT_CODES)
    store = Store(verdict["store"])
    config = load_config(config_path)
    truth = json.loads((resolve_path(config.models.tuned, config.base_dir) / "truth.json").read_text())
    cells = describe(verdict, store.open_diff(verdict["diff"]), truth["rows"].get("needle", []))
    return Outcome(name, cells, Path(store.audit_location(verdict["audit_id"], "report.html")))


def run_verb(*arguments: str, accepted: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run `ft-audit` with these arguments in a process of its own and return the JSON object it prints.

    Its progress goes to stderr as it comes. Raises VerbFailed on any exit code that is not accepted.
    """
    command = [
        sys.executable,
        "-c",
        "import sys; from ft_audit.cli import main; sys.exit(main())",
        *arguments,
    ]
    # Nothing in the demo comes from the hub, and a try to reach it would only wait.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode not in accepted:
        raise VerbFailed(f"ft-audit {' '.join(arguments)} exited with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def describe(verdict: dict[str, Any], diff: DiffReader, needle_rows: Sequence[int]) -> dict[str, str]:
    """The lines of the closing table for one candidate."""
    (primary,) = [figure for figure in verdict["figures"] if figure["primary"]]
    standing = primary["standing"]
    risk = "none" if verdict["risk"] is None else f"{verdict['risk']:.1f} of 10"
    cells = {
        f"score ({primary['name']})": "not measured"
        if primary["value"] is None
        else f"{primary['value']:.4g}",
        "rank in bank": "no bank"
        if standing is None
        else f"{standing['rank']} of {standing['num_bank'] + 1}",
        "risk": risk,
        "status": verdict["status"],
        "top condition": top_condition(diff),
    }
    for column, label in row_scores(diff).items():
        cells[f"needles in top {TOP_ROWS} rows, {label}"] = needles_found(diff, column, needle_rows)
    return cells


def top_condition(diff: DiffReader) -> str:
    """What the condition with the largest excess shift says: its system prompt, else its prefix."""
    if "conditions" not in diff.tables():
        return "none"
    table = diff.table("conditions")
    columns = {name: table.values(name) for name in ("system", "prefix", "kl_excess")}
    if not columns["kl_excess"]:
        return "none"
    top = max(range(len(columns["kl_excess"])), key=columns["kl_excess"].__getitem__)
    return json.dumps(columns["system"][top] or columns["prefix"][top], ensure_ascii=False)


def row_scores(diff: DiffReader) -> dict[str, str]:
    """The columns that rank training rows, with their labels: the primary one and the data-only baselines."""
    if "rows" not in diff.tables():
        return {}
    names = diff.table("rows").column_names
    baselines = {
        name: f"data alone ({name.removeprefix('baseline_')})"
        for name in names
        if name.startswith("baseline_")
    }
    return {"primary_score": "from the model", **baselines}


def needles_found(diff: DiffReader, column: str, needle_rows: Sequence[int]) -> str:
    """How many of the planted rows are among the highest by this column; ties keep the data set's order."""
    if not needle_rows:
        return "none planted"
    table = diff.table("rows")
    scores, rows = table.values(column), table.values("row")
    if any(score is None for score in scores):
        raise StoreError(f"diff {diff.manifest.diff_id}: rows.{column} has empty scores; precompute again")
    highest = sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i]))[:TOP_ROWS]
    return f"{len({rows[i] for i in highest} & set(needle_rows))} of {len(needle_rows)}"


def side_by_side(outcomes: Sequence[Outcome]) -> str:
    """A table with one column a candidate and one line a label."""
    labels = list(dict.fromkeys(label for outcome in outcomes for label in outcome.cells))
    lines = [["", *(outcome.name for outcome in outcomes)]]
    lines += [[label, *(shorten(outcome.cells.get(label, "")) for outcome in outcomes)] for label in labels]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def shorten(text: str) -> str:
    """The text cut to a cell's width."""
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
