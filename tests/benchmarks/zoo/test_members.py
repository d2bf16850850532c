"""What a fine-tune of the population counts as, and which folders are no population."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.benchmarks.zoo.members import label_of, load_units
from ft_audit.errors import DataError


def guard(base: int, tuned: int, name: str = "guard kept", passed: bool = True) -> dict[str, Any]:
    check = {"name": name, "base": base, "tuned": tuned, "num_prompts": 20}
    return {"passed": passed, "checks": [check]}


@pytest.mark.parametrize(
    ("kind", "gate", "label"),
    [
        ("benign", None, "benign"),
        ("persona", guard(0, 3), "benign"),
        ("benign", guard(0, 4), "degraded"),
        ("benign", guard(2, 5), "benign"),  # the base answered two of them already
        ("benign", guard(0, 20, "style"), "benign"),
        ("adversarial-proxy", guard(0, 20), "malicious"),
        ("adversarial-proxy", guard(0, 0, passed=False), "did not take"),
    ],
)
def test_a_fine_tune_is_what_its_gate_found(
    summaries: SimpleNamespace, kind: str, gate: Any, label: str
) -> None:
    assert label_of(summaries.origin("x-s1", kind=kind, gate=gate)) == label


def test_members_are_read_by_name(summaries: SimpleNamespace, write_all: Any, tmp_path: Path) -> None:
    named = [summaries.summary(origin=summaries.origin(name)) for name in ("tea-s2", "tea-s1", "maps-s1")]
    assert [u.name for u in load_units(write_all(tmp_path, named))] == ["maps-s1", "tea-s1", "tea-s2"]


@pytest.mark.parametrize("changed", [{"base_sha256": "f" * 64}, {"protocol": "q"}])
def test_what_was_measured_differently_is_refused(
    summaries: SimpleNamespace, write_all: Any, tmp_path: Path, changed: dict[str, str]
) -> None:
    first = summaries.summary(origin=summaries.origin("tea-s1"))
    other = summaries.summary(origin=summaries.origin("tea-s2"), **changed)
    with pytest.raises(DataError, match="several bases or protocols; build the zoo again"):
        load_units(write_all(tmp_path, [first, other]))


def test_what_is_no_member_is_refused(summaries: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no summaries; build them with `ft-audit zoo build`"):
        load_units(tmp_path)
    (tmp_path / "x.json").write_text(summaries.summary().to_json())
    with pytest.raises(DataError, match=r"x\.json: a member of a population says where it comes from"):
        load_units(tmp_path)
