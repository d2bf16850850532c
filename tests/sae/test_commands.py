"""The verbs `sae train`, `sae info` and `sae convert`, through the front door."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.cli import main
from ft_audit.sae.formats.gemma_scope import load_gemma_scope, save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae

RandomSae = Callable[..., JumpReluSae]


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON object on stdout."""
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_info_tells_what_a_dictionary_is(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = random_sae()
    save_gemma_scope(tmp_path / "random", sae, {})
    assert main(["sae", "info", str(tmp_path / "random"), "--json"]) == 0
    told = answer(capsys)
    assert (told["width"], told["d_in"], told["layer"], told["sha256"]) == (20, 8, 3, sae.spec.sha256)
    assert told["threshold_min"] == told["threshold_max"] == pytest.approx(2.0)
    assert told["report"] is None
    assert main(["sae", "info", str(tmp_path / "random")]) == 0
    assert sae.spec.sha256 in capsys.readouterr().out


def test_info_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sae", "info", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_convert_rounds_only_when_asked(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    save_gemma_scope(tmp_path / "a", random_sae(), {})
    assert main(["sae", "convert", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert answer(capsys)["sha256"] == random_sae().spec.sha256
    assert main(["sae", "convert", str(tmp_path / "a"), str(tmp_path / "c"), "--dtype", "bfloat16"]) == 0
    assert torch.equal(load_gemma_scope(tmp_path / "b").w_enc_DF, random_sae().w_enc_DF)
    assert torch.equal(load_gemma_scope(tmp_path / "c").w_enc_DF, random_sae().w_enc_DF.bfloat16().float())


@pytest.mark.parametrize("words", [["sae"], ["sae", "train"], ["sae", "melt", "x"]])
def test_wrong_usage_is_an_error(words: list[str]) -> None:
    assert main(words) == 1
