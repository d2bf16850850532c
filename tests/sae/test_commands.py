"""The verbs `sae train`, `sae info` and `sae convert`, through the front door."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

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


def test_info_tells_of_other_kinds_what_they_are(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = random_sae()
    spec = replace(
        sae.spec, name="sly\x1b[2Jname", site="mlp_in", hook_point="mlp_in/3", writes=("mlp_out/3",)
    )
    skip, zeros = torch.eye(8), torch.zeros(20)
    save_gemma_scope(tmp_path / "t", replace(sae, spec=spec, topk=4, threshold_F=zeros, w_skip_DO=skip), {})
    assert main(["sae", "info", str(tmp_path / "t"), "--json"]) == 0
    told = answer(capsys)
    assert (told["kind"], told["format"], told["activation"], told["topk"]) == (
        "transcoder",
        "gemma-scope-2",
        "topk",
        4,
    )
    assert (told["inputs"], told["outputs"], told["affine_skip"]) == (["mlp_in/3"], ["mlp_out/3"], True)
    assert told["decoder_norm_min"] == pytest.approx(1.0, rel=1e-3) and told["examples"] is None
    assert main(["sae", "info", str(tmp_path / "t")]) == 0
    shown = capsys.readouterr().out
    # A name out of a stranger's file must not steer the terminal.
    assert "sly" in shown and "\x1b" not in shown


def test_info_tells_whether_examples_are_there(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    save_gemma_scope(tmp_path, random_sae(), {})
    places = torch.zeros(20, 3, dtype=torch.int32)
    names = (
        "top_tokens",
        "bottom_tokens",
        "seq_ids",
        "positions",
        "top_logits",
        "bottom_logits",
        "activations",
    )
    tensors = {name: places.clone() for name in names[:4]} | {name: places.float() for name in names[4:]}
    rates = torch.linspace(0.0, 0.19, 20)
    save_file(
        tensors | {"feature_frequencies": rates, "tokens": torch.zeros(5, 16, dtype=torch.int32)},
        tmp_path / "examples.safetensors",
    )
    assert main(["sae", "info", str(tmp_path), "--json"]) == 0
    assert answer(capsys)["examples"] == {
        "features": 20,
        "sequences": 5,
        "sequence_length": 16,
        "never_fires": 1,
        "median_firing_rate": pytest.approx(0.095),
    }


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


def test_convert_is_told_what_the_files_do_not_say(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    save_gemma_scope(tmp_path / "a", random_sae(), {})
    (tmp_path / "a" / "config.json").unlink()
    words = ["sae", "convert", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]
    assert main(words) == 1
    assert "nothing says which place of the model it reads" in capsys.readouterr().err
    assert main([*words, "--hook", "mlp_out/4", "--model", "me/own", "--name", "mine"]) == 0
    told, spec = answer(capsys), load_gemma_scope(tmp_path / "b").spec
    assert (spec.inputs, spec.model_name, spec.name) == (("mlp_out/4",), "me/own", "mine")
    assert (told["name"], told["sha256"]) == ("mine", spec.sha256)


def test_convert_says_what_was_written_not_what_was_read(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = random_sae()
    folder = tmp_path / "release" / "layer_3"
    folder.mkdir(parents=True)
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": True, "d_sae": 20}
    config |= {"metadata": {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2"}}
    (folder / "cfg.json").write_text(json.dumps(config))
    tensors = {"W_enc": sae.w_enc_DF, "W_dec": sae.w_dec_FD, "b_enc": sae.b_enc_F, "b_dec": sae.b_dec_D}
    save_file(tensors | {"threshold": sae.threshold_F}, folder / "sae_weights.safetensors")
    assert main(["sae", "convert", str(folder), str(tmp_path / "b"), "--json"]) == 0
    assert answer(capsys)["sha256"] == load_gemma_scope(tmp_path / "b").spec.sha256


def test_convert_approximates_topk_and_says_how_well(
    tmp_path: Path, random_sae: RandomSae, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = random_sae(width=60)
    save_gemma_scope(tmp_path / "a", replace(sae, topk=5, threshold_F=torch.zeros(60)), {})
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    words = [
        "sae",
        "convert",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--threshold",
        str(tmp_path / "x.npy"),
    ]
    assert main([*words, "--json"]) == 0
    stated = json.loads((tmp_path / "b" / "config.json").read_text())
    assert stated["architecture"] == "jump_relu"
    assert stated["threshold_approximation"] == answer(capsys)["threshold_approximation"]
    assert stated["threshold_approximation"]["topk"] == 5 and stated["threshold_approximation"]["missed"] > 0
    back = load_gemma_scope(tmp_path / "b")
    assert back.threshold_F.tolist() == pytest.approx([stated["threshold_approximation"]["threshold"]] * 60)
    assert main(words) == 0
    assert "fvu_threshold" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["sae"], ["sae", "train"], ["sae", "melt", "x"]])
def test_wrong_usage_is_an_error(words: list[str]) -> None:
    assert main(words) == 1
