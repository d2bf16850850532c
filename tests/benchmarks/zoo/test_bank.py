"""The zoo's bank: its benign fine-tunes, weighed against its attacks, degraded ones left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.calibration import Bank
from ft_audit.benchmarks.zoo.bank import write_zoo_bank
from ft_audit.benchmarks.zoo.population import load_zoo
from ft_audit.errors import DataError

ATTACK = {"kind": "adversarial-proxy", "family": "persona"}
LOST = {"passed": True, "checks": [{"name": "guard kept", "base": 0, "tuned": 9, "num_prompts": 20}]}


def test_benign_members_are_the_bank_and_attacks_its_weights(
    write_zoo: Callable[..., Path], write_all: Any, draw: Any, passed: Any, tmp_path: Path
) -> None:
    zoo = load_zoo(write_zoo({name: [1] for name in ("tea", "maps", "law", "art", "lax")} | {"zed": ATTACK}))
    rng = np.random.default_rng(0)
    units = [draw(rng, f"{name}-s1") for name in ("tea", "maps", "law", "art")]
    units += [draw(rng, "lax-s1", gate=LOST), draw(rng, "zed-s1", loud=True, gate=passed, **ATTACK)]
    result = write_zoo_bank(zoo, write_all(tmp_path / "out", units), tmp_path / "bank.json")
    bank = Bank.model_validate_json((tmp_path / "bank.json").read_bytes())
    assert result["members"] == 4
    assert {m.name: m.corpus for m in bank.members} == {
        f"{name}-s1": "package:chatterbot_corpus/data/english" for name in ("tea", "maps", "law", "art")
    }
    assert bank.discriminant is not None
    assert bank.discriminant.fitted_on == result["fitted_on"] == "1 attacks of 1 families: persona"
    assert all(member.figures["score"] is not None for member in bank.members)


def test_a_summary_of_no_member_is_refused(
    write_zoo: Callable[..., Path], write_all: Any, draw: Any, tmp_path: Path
) -> None:
    folder = write_all(tmp_path / "out", [draw(np.random.default_rng(0), "gone-s1")])
    with pytest.raises(DataError, match="gone-s1 is no member of the zoo small"):
        write_zoo_bank(load_zoo(write_zoo({"tea": [1]})), folder, tmp_path / "bank.json")
