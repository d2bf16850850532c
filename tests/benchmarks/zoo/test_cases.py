"""The zoo's fine-tunes as audits: what has no evidence is named, and each has a bank without its kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.calibration import Bank
from ft_audit.benchmarks.zoo.cases import open_cases
from ft_audit.benchmarks.zoo.population import load_zoo
from ft_audit.errors import DataError

BENIGN = ("tea", "maps", "law", "art", "rail")
ATTACKS = {"zed": "persona", "yew": "persona", "caesar": "cipher"}


def test_each_has_a_bank_without_its_kind(
    write_zoo: Callable[..., Path], write_all: Any, draw: Any, passed: Any, tmp_path: Path
) -> None:
    attack = {name: {"kind": "adversarial-proxy", "family": family} for name, family in ATTACKS.items()}
    zoo = load_zoo(write_zoo({name: [1] for name in BENIGN} | attack))
    rng = np.random.default_rng(0)
    units = [draw(rng, f"{name}-s1") for name in BENIGN]
    units += [draw(rng, f"{name}-s1", loud=True, gate=passed, **said) for name, said in attack.items()]
    banks = tmp_path / "banks"
    cases = open_cases(zoo, write_all(tmp_path / "out", units), tmp_path / "work", banks)
    # Nothing was precomputed here.
    assert not cases.found and set(cases.missing) == {f"{name}-s1" for name in (*BENIGN, *ATTACKS)}

    def bank_of(name: str) -> tuple[set[str], str]:
        bank = Bank.model_validate_json((banks / f"{name}-s1.json").read_bytes())
        assert bank.discriminant is not None
        return {member.recipe for member in bank.members}, bank.discriminant.fitted_on

    assert bank_of("tea") == (set(BENIGN) - {"tea"}, "3 attacks of other families")
    assert bank_of("zed") == (set(BENIGN), "1 attacks of other families")
    assert bank_of("caesar") == (set(BENIGN), "2 attacks of other families")


def test_a_summary_of_no_member_is_refused(
    write_zoo: Callable[..., Path], write_all: Any, draw: Any, tmp_path: Path
) -> None:
    folder = write_all(tmp_path / "out", [draw(np.random.default_rng(0), "gone-s1")])
    with pytest.raises(DataError, match="gone-s1 is no member of the zoo small"):
        open_cases(load_zoo(write_zoo({"tea": [1]})), folder, tmp_path / "work", tmp_path / "banks")
