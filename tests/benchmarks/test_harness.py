"""The benchmark contract: every asked figure present, bounds judged, missing values explained."""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ft_audit.benchmarks.harness import (
    Asked,
    Measurement,
    Report,
    commit,
    compare,
    load_asked,
    run_benchmark,
    table,
    versions,
)

ASKED = {
    "speed": Asked(bound=">= 6", unit="x", means="against the plain loop"),
    "growth": Asked(bound="< 1.10", unit="x", means="memory"),
}


def precompute_measurements() -> list[Measurement]:
    return [
        Measurement("tokens_per_second", 1234.5, "tokens/s"),
        Measurement("ours_vs_plain", 7.0, "x"),
        Measurement("ours_vs_plain_bf16_sorted", 1.5, "x"),
        Measurement("share_of_bare_forward", 0.88, "ratio"),
        Measurement("padding_share", 0.01, "ratio"),
        Measurement("second_candidate_speed", 1.9, "x"),
        Measurement("adapter_memory", None, "x", "no peak memory on this platform"),
        Measurement("every_block_time", 3.0, "x"),
        Measurement("encode_and_statistics_share", 0.05, "ratio"),
    ]


def test_precompute_is_asked_its_figures() -> None:
    bounds = {name: row.bound for name, row in load_asked("precompute").items()}
    assert bounds == {
        "ours_vs_plain": ">= 7",
        "ours_vs_plain_bf16_sorted": ">= 1.8",
        "share_of_bare_forward": ">= 0.88",
        "padding_share": "< 0.03",
        "second_candidate_speed": ">= 1.8",
        "adapter_memory": "<= 1.15",
        "every_block_time": "<= 3.5",
        "encode_and_statistics_share": "<= 0.10",
    }


def test_nothing_is_asked_of_an_unnamed_benchmark() -> None:
    assert load_asked("no_such_benchmark") == {}


def test_an_asked_row_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump({"b": {"f": {"bound": ">= 1", "unit": "x", "means": "m", "floor": 2}}}))
    with pytest.raises(ValidationError, match="floor"):
        load_asked("b", path)


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        (">= 6", 6.0, True), (">= 6", 5.999, False), ("< 1.10", 1.10, False), ("< 1.10", 1.09, True),
        ("<= 3.2", 3.2, True), ("> 0", 0.0, False),
    ],
)  # fmt: skip
def test_a_bound_is_judged_at_its_edge(bound: str, value: float, holds: bool) -> None:
    assert Asked(bound=bound, unit="x", means="m").holds(value) is holds


def test_asked_figures_come_first_and_unasked_ones_are_not_judged() -> None:
    figures = compare(
        [Measurement("extra", 3.0, "s"), Measurement("growth", 1.2, "x"), Measurement("speed", 9.0, "x")],
        ASKED,
    )
    assert [(f.name, f.asked, f.holds) for f in figures] == [
        ("speed", ">= 6", True),
        ("growth", "< 1.10", False),
        ("extra", None, None),
    ]


def test_an_asked_figure_may_not_be_left_out() -> None:
    with pytest.raises(AssertionError, match="growth"):
        compare([Measurement("speed", 9.0, "x")], ASKED)


def test_a_missing_value_needs_its_reason() -> None:
    with pytest.raises(AssertionError, match="reason"):
        Measurement("speed", None, "x")


def test_a_figure_measured_twice_is_refused() -> None:
    with pytest.raises(AssertionError, match="twice"):
        compare([Measurement("speed", 9.0, "x"), Measurement("speed", 8.0, "x")], {})


def test_the_report_file_has_the_contract_s_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "precompute.json"
    assert run_benchmark("precompute", lambda options: precompute_measurements(), ["--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert set(report) == {"device", "versions", "commit", "figures"}
    assert {frozenset(figure) for figure in report["figures"]} == {
        frozenset({"name", "value", "unit", "asked", "holds", "reason"})
    }
    by_name = {figure["name"]: figure for figure in report["figures"]}
    assert by_name["ours_vs_plain"]["holds"] is True
    assert by_name["ours_vs_plain_bf16_sorted"]["holds"] is False
    assert by_name["adapter_memory"] == {
        "name": "adapter_memory", "value": None, "unit": "x", "asked": "<= 1.15", "holds": None,
        "reason": "no peak memory on this platform",
    }  # fmt: skip
    assert report["device"].split(":")[0] in {"cpu", "cuda", "mps"}
    assert report["versions"]["torch"]
    printed = capsys.readouterr().out
    assert "MISSED" in printed
    assert "not measured" in printed


def test_a_benchmark_takes_its_own_options() -> None:
    seen: list[int] = []

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=5)

    def measure(options: argparse.Namespace) -> list[Measurement]:
        seen.append(options.tokens)
        return precompute_measurements()

    assert run_benchmark("precompute", measure, ["--tokens", "7"], add_options) == 0
    assert seen == [7]


def test_wrong_results_report_no_speed(tmp_path: Path) -> None:
    def measure(options: argparse.Namespace) -> list[Measurement]:
        raise AssertionError("features differ from the plain formula")

    with pytest.raises(AssertionError, match="features differ"):
        run_benchmark("precompute", measure, ["--json", str(tmp_path / "f.json")])
    assert not (tmp_path / "f.json").exists()


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    nan = [m for m in precompute_measurements() if m.name != "ours_vs_plain"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_benchmark(
            "precompute",
            lambda _: [*nan, Measurement("ours_vs_plain", float("nan"), "x")],
            ["--json", str(tmp_path / "f.json")],
        )
    assert not (tmp_path / "f.json").exists()


def test_the_table_lines_up() -> None:
    figures = compare([Measurement("speed", 9.0, "x"), Measurement("growth", 1.0, "x")], ASKED)
    lines = table(Report("cpu: test, 2 cores", {}, None, figures)).splitlines()
    assert lines[0] == "cpu: test, 2 cores | commit unknown"
    assert [line.index(">=" if "speed" in line else "<") for line in lines[2:]] == [
        lines[1].index("asked")
    ] * 2


def test_versions_and_commit_say_what_ran() -> None:
    assert {"python", "numpy", "torch"} <= versions().keys()
    found = commit()
    assert found is None or len(found.removesuffix("+changes")) == 40
