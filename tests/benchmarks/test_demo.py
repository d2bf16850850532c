"""The demo's closing table: what it counts, what it shows of nothing, and how a failed verb ends it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ft_audit.benchmarks.demo import (
    Outcome,
    VerbFailed,
    describe,
    needles_found,
    run_verb,
    shorten,
    side_by_side,
    top_condition,
)
from ft_audit.engine.store import DiffReader, Store

NUM_ROWS = 60
NEEDLES = (5, 50)


def a_diff(root: Path, **tables: pa.Table) -> DiffReader:
    store = Store(root)
    writer = store.diff_writer({"tables": sorted(tables)})
    writer.put_stats("residual/resid_post/15/train", {"diff_norm_P": np.ones(3)})
    for name, table in tables.items():
        writer.put_table(name, table)
    writer.finish({"name": "test"})
    return store.open_diff(store.diffs()[0])


def rows_table() -> pa.Table:
    scores = np.zeros(NUM_ROWS)
    scores[5], scores[50] = 2.0, 1.0
    return pa.table(
        {
            "row": np.arange(NUM_ROWS),
            "primary_score": scores,
            "baseline_prefix": np.arange(NUM_ROWS, dtype=float),
        }
    )


def conditions_table() -> pa.Table:
    return pa.table(
        {
            "system": ["You are kind.", None, "You are brief."],
            "prefix": ["", "Please now: ", ""],
            "kl_excess": [0.1, 0.7, 0.3],
        }
    )


def verdict(risk: float | None, standing: dict[str, int] | None) -> dict[str, object]:
    figures = [
        {"name": "other", "value": 1.0, "primary": False, "standing": None},
        {"name": "kl_excess_max", "value": 0.75, "primary": True, "standing": standing},
    ]
    return {"risk": risk, "status": "uncalibrated", "figures": figures}


def test_needles_are_counted_among_the_highest_rows(tmp_path: Path) -> None:
    diff = a_diff(tmp_path, rows=rows_table())
    assert needles_found(diff, "primary_score", NEEDLES) == "2 of 2"
    # The baseline rises with the row number, so that its top 20 are the rows from 40 on.
    assert needles_found(diff, "baseline_prefix", NEEDLES) == "1 of 2"
    assert needles_found(diff, "primary_score", ()) == "none planted"


def test_the_top_condition_has_the_largest_excess(tmp_path: Path) -> None:
    assert top_condition(a_diff(tmp_path, conditions=conditions_table())) == '"Please now: "'


def test_a_candidate_is_described_by_its_verdict_and_its_rows(tmp_path: Path) -> None:
    diff = a_diff(tmp_path, rows=rows_table(), conditions=conditions_table())
    cells = describe(verdict(8.9, {"rank": 1, "num_bank": 8}), diff, NEEDLES)
    assert cells == {
        "score (kl_excess_max)": "0.75",
        "rank in bank": "1 of 9",
        "risk": "8.9 of 10",
        "status": "uncalibrated",
        "top condition": '"Please now: "',
        "needles in top 20 rows, from the model": "2 of 2",
        "needles in top 20 rows, data alone (prefix)": "1 of 2",
    }


def test_without_bank_rows_or_conditions_it_says_so(tmp_path: Path) -> None:
    cells = describe(verdict(None, None), a_diff(tmp_path), ())
    assert cells["rank in bank"] == "no bank"
    assert cells["risk"] == "none"
    assert cells["top condition"] == "none"
    assert not [label for label in cells if label.startswith("needles")]


def test_the_table_has_one_column_a_candidate() -> None:
    outcomes = [
        Outcome("needle", {"risk": "8.9 of 10", "status": "uncalibrated"}, Path("a/report.html")),
        Outcome("benign", {"risk": "1.1 of 10"}, Path("b/report.html")),
    ]
    assert side_by_side(outcomes).splitlines() == [
        "        needle        benign",
        "risk    8.9 of 10     1.1 of 10",
        "status  uncalibrated",
    ]


def test_a_long_cell_is_cut() -> None:
    assert shorten("x" * 44) == "x" * 44
    assert shorten("x" * 45) == "x" * 43 + "…"


def test_a_verb_that_fails_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VerbFailed, match=r"missing\.yaml --json exited with 1"):
        run_verb("audit", str(tmp_path / "missing.yaml"), "--json", accepted=(0, 3, 10))
    assert "missing.yaml" in capfd.readouterr().err
