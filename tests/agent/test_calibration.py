"""Rank, conformal p and risk; a bank of something else says nothing, and a small one says little."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ft_audit.agent.calibration import Subject, load_calibration, risk_of, stand, status_of
from ft_audit.agent.risk.score import Score
from ft_audit.errors import ConfigError

SUBJECT = Subject("b" * 64, frozenset({"5" * 64}), frozenset({"resid_post/15"}), "p" * 16)
EIGHT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("value", "num_below", "rank", "p_value", "risk"),
    [
        (9.0, 8, 1, 1 / 9, 4.147),
        (8.0, 7, 2, 2 / 9, 2.839),  # a tie counts against the candidate's being unusual
        (4.5, 4, 5, 5 / 9, 1.109),
        (0.0, 0, 9, 1.0, 0.0),
    ],
)
def test_standing_follows_the_formulas(
    value: float, num_below: int, rank: int, p_value: float, risk: float
) -> None:
    standing = stand(value, EIGHT)
    assert (standing.num_bank, standing.num_below, standing.rank) == (8, num_below, rank)
    assert standing.p_value == pytest.approx(p_value) and risk_of(standing) == pytest.approx(risk, abs=1e-3)
    assert (standing.bank_min, standing.bank_median, standing.bank_max) == (1.0, 4.5, 8.0)
    assert standing.above_all is (rank == 1)


@pytest.mark.parametrize(("count", "status"), [(1, "uncalibrated"), (19, "uncalibrated"), (20, "calibrated")])
def test_below_twenty_members_a_verdict_is_uncalibrated(count: int, status: str) -> None:
    assert status_of(stand(1.0, [0.5] * count)) == status


def test_without_a_standing_a_verdict_is_inconclusive() -> None:
    assert status_of(None) == "inconclusive"


def test_a_fitting_bank_is_used(tmp_path: Path, synthetic: SimpleNamespace) -> None:
    calibration = load_calibration(synthetic.write_bank(tmp_path / "bank.json"), SUBJECT)
    assert calibration.refusal is None and len(calibration.members) == 8
    assert calibration.standing("plain_kl", 100.0) == stand(
        100.0, [value for _, value in calibration.values("plain_kl")]
    )
    for nothing in (None, float("nan"), float("inf")):
        assert calibration.standing("plain_kl", nothing) is None
    assert calibration.standing("never measured", 1.0) is None


def test_beside_a_candidate_members_stand_as_their_own_fit_has_it(
    tmp_path: Path, synthetic: SimpleNamespace
) -> None:
    path = synthetic.write_bank(tmp_path / "bank.json", num_members=3, weighed=True)
    calibration = load_calibration(path, SUBJECT)
    # Members score 0, 0.1 and 0.2; the candidate stands below the first, beside the second, above the third.
    without = {"recipe-0": -1.0, "recipe-1": 0.1, "recipe-2": 0.7}
    beside = calibration.beside(Score(5.0, (), without))
    assert [value for _, value in beside.values("score")] == pytest.approx([6.0, 5.0, 4.5])
    standing = beside.standing("score", 5.0)
    assert standing is not None and (standing.rank, standing.num_below) == (3, 1)
    others = [[value for _, value in one.values("plain_kl")] for one in (beside, calibration)]
    assert others[0] == others[1] and beside.sha256 == calibration.sha256


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"base_sha256": "f" * 64}, "another base model (ffffffffffff, not bbbbbbbbbbbb)"),
        ({"sae_sha256": ["6" * 64]}, "other dictionaries"),
        ({"hooks": ["resid_post/9"]}, "other hooks (resid_post/9, not resid_post/15)"),
        ({"protocol": "q"}, "another protocol"),
        ({"members": []}, "no members"),
    ],
)
def test_a_bank_of_something_else_is_refused(
    tmp_path: Path, synthetic: SimpleNamespace, changed: dict[str, object], reason: str
) -> None:
    calibration = load_calibration(synthetic.write_bank(tmp_path / "bank.json", **changed), SUBJECT)
    assert calibration.bank is None and calibration.refusal is not None and reason in calibration.refusal
    assert calibration.standing("plain_kl", 1.0) is None


def test_a_member_without_a_figure_is_not_counted(tmp_path: Path, synthetic: SimpleNamespace) -> None:
    path = synthetic.write_bank(tmp_path / "bank.json")
    bank = json.loads(path.read_text())
    bank["members"][0]["figures"]["plain_kl"] = None
    del bank["members"][1]["figures"]["plain_kl"]
    path.write_text(json.dumps(bank))
    standing = load_calibration(path, SUBJECT).standing("plain_kl", 100.0)
    assert standing is not None and standing.num_bank == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a bank"),
        ("[]", "not a bank"),
        ('{"schema_version": 2}', "schema_version"),
        ('{"schema_version": 3, "extra": 1}', "not a bank"),
    ],
)
def test_a_file_that_is_no_bank_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bank.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}.*{said}.*ft-audit calibrate"):
        load_calibration(path, SUBJECT)


def test_a_missing_bank_is_an_error_and_no_bank_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such bank"):
        load_calibration(tmp_path / "bank.json", SUBJECT)
    assert "names no bank" in (load_calibration(None, SUBJECT).refusal or "")


def test_the_order_of_dictionaries_does_not_matter(tmp_path: Path, synthetic: SimpleNamespace) -> None:
    two = ["6" * 64, "5" * 64]
    path = synthetic.write_bank(tmp_path / "bank.json", sae_sha256=two)
    assert load_calibration(path, replace(SUBJECT, sae_sha256=frozenset(two))).refusal is None
