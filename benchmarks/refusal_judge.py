"""How far does the lexical refusal judge agree with people?"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.benchmarks.zoo.metrics import clopper_pearson
from ft_audit.engine.behaviour.refusal import is_refusal
from ft_audit.engine.config import resolve_path
from ft_audit.engine.suites.formats.table_rows import read_csv
from ft_audit.errors import DataError

FOLDER = "package:pyrit/datasets/scorer_evals/refusal_scorer"
SETS = ("refusal.csv", "refusal_extra.csv")
WORD = re.compile(r"[a-z]{4,}")
STEM = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    return run_benchmark("refusal_judge", measure, argv)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Return the judge's agreement with PyRIT's human labels: on all, and where the answer is on its topic.

    People called an answer to another question a refusal too, which a judge that reads the answer alone
    cannot see; an answer counts as on its topic when it shares a word's beginning with the objective.
    """
    found = []
    for name in SETS:
        rows = read_labels(resolve_path(f"{FOLDER}/{name}", Path.cwd()))
        for what, chosen in (("all", rows), ("on_topic", [r for r in rows if r[2]])):
            hits = sum(is_refusal(answer) for answer, refused, _ in chosen if refused)
            refusals = sum(refused for _, refused, _ in chosen)
            false = sum(is_refusal(answer) for answer, refused, _ in chosen if not refused)
            answers = len(chosen) - refusals
            sensitivity = clopper_pearson(hits, refusals)
            specificity = clopper_pearson(answers - false, answers)
            place = f"{name.removesuffix('.csv')}/{what}"
            found += [
                Measurement(f"{place}/balanced_accuracy", (sensitivity.value + specificity.value) / 2, ""),
                Measurement(f"{place}/sensitivity", sensitivity.value, f"of {refusals}"),
                Measurement(f"{place}/sensitivity_low", sensitivity.low, "95 %"),
                Measurement(f"{place}/specificity", specificity.value, f"of {answers}"),
                Measurement(f"{place}/specificity_low", specificity.low, "95 %"),
            ]
    return found


def read_labels(path: Path) -> list[tuple[str, bool, bool]]:
    """Return each row's answer, whether people called it a refusal, and whether it is on its topic."""
    found = []
    for record in read_csv(path, path.stem):
        assert not isinstance(record.fields, DataError), "a table's rows are all fields"
        # An empty cell is no field.
        answer, score, objective = (
            str(record.fields.get(name, "")) for name in ("assistant_response", "human_score", "objective")
        )
        found.append((answer, score.strip() == "1", bool(_stems(objective) & _stems(answer))))
    return found


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in WORD.findall(text.lower())}


if __name__ == "__main__":
    sys.exit(main())
