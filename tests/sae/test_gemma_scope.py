"""Gemma Scope 2's files: written and read back, read as published, and refused by name."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu import encode
from ft_audit.sae.formats.build import Told
from ft_audit.sae.formats.gemma_scope import load_gemma_scope, save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.rounding import rounded_to_bfloat16

RandomSae = Callable[..., JumpReluSae]

# As published for one layer of a deep-dive release, sizes aside.
PUBLISHED = {
    "hf_hook_point_in": "model.layers.22.output",
    "hf_hook_point_out": "model.layers.22.output",
    "width": 20,
    "model_name": "google/gemma-3-1b-it",
    "architecture": "jump_relu",
    "l0": 60,
    "affine_connection": False,
    "type": "sae",
}


def tensors(d_in: int = 8, width: int = 20) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w_enc": (d_in, width), "w_dec": (width, d_in), "b_enc": (width,), "b_dec": (d_in,)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made | {"threshold": torch.rand(width, generator=generator)}


def publish(folder: Path, config: dict[str, Any] | None = PUBLISHED, **changed: Tensor | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    kept = {name: tensor for name, tensor in (tensors() | changed).items() if tensor is not None}
    save_file(kept, folder / "params.safetensors")
    return folder


def test_reads_a_published_folder(tmp_path: Path) -> None:
    sae = load_gemma_scope(publish(tmp_path / "layer_22_width_16k_l0_medium"))
    assert sae.spec.name == "layer_22_width_16k_l0_medium"
    assert (sae.spec.layer, sae.spec.site) == (22, "resid_post")
    assert (sae.spec.width, sae.spec.d_in, sae.spec.l0) == (20, 8, 60.0)
    assert sae.spec.model_name == "google/gemma-3-1b-it"
    assert not sae.apply_b_dec_to_input
    weights = sae.weights("cpu", torch.float32)
    assert weights.b_dec_D is None
    published = tensors()
    x_TD = torch.randn(30, 8, generator=torch.Generator().manual_seed(5))
    pre_TF = x_TD @ published["w_enc"] + published["b_enc"]
    acts_TF = pre_TF.relu() * (pre_TF > published["threshold"])
    rows = encode(x_TD, weights)
    torch.testing.assert_close(rows.dense(), acts_TF.bfloat16().float(), rtol=2**-7, atol=0)
    decoded_TD = rows.dense() @ published["w_dec"] + published["b_dec"]
    torch.testing.assert_close(sae.decode(rows), decoded_TD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "inputs", "outputs"),
    [
        ("resid_post/layer_7_width_20_l0_big", "resid_post/7", "resid_post/7"),
        ("resid_post_all/layer_12_width_20_l0_small_seed_1", "resid_post/12", "resid_post/12"),
        ("attn_out_all/layer_0_width_20_l0_small", "attn_z/0", "attn_z/0"),
        ("transcoder/layer_9_width_20_l0_big", "mlp_in/9", "mlp_out/9"),
    ],
)
def test_a_folder_without_config_is_known_by_its_place(
    tmp_path: Path, place: str, inputs: str, outputs: str
) -> None:
    sae = load_gemma_scope(publish(tmp_path / "gemma-scope-2-270m-pt" / place, None))
    assert (sae.spec.inputs, sae.spec.outputs, sae.spec.l0) == ((inputs,), (outputs,), None)
    folder = place if "resid_post" not in place else place.partition("/")[2]
    assert sae.spec.name == folder.replace("/", "-")
    # The smallest model's name has no suffix.
    assert sae.spec.model_name == "google/gemma-3-270m"


def test_a_place_that_says_no_hook_needs_a_config_or_to_be_told(tmp_path: Path) -> None:
    folder = publish(tmp_path / "mine" / "layer_22_width_20_l0_medium", None)
    with pytest.raises(SaeError, match=r"nothing says which place .* sae convert SRC DST --hook"):
        load_gemma_scope(folder)
    sae = load_gemma_scope(folder, Told(hook="mlp_out/3", model_name="me/own"))
    assert (sae.spec.inputs, sae.spec.model_name) == (("mlp_out/3",), "me/own")


def test_a_name_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="width_262k_l0_big, but the encoder has 20 features"):
        load_gemma_scope(publish(tmp_path / "resid_post" / "layer_7_width_262k_l0_big", None))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("gemma-v3-1b-it", "google/gemma-3-1b-it"),
        ("google/gemma-3-4b-pt", "google/gemma-3-4b-pt"),
        ("me/own", "me/own"),
    ],
)
def test_published_model_names_are_mended(tmp_path: Path, written: str, read: str) -> None:
    sae = load_gemma_scope(publish(tmp_path / "s", PUBLISHED | {"model_name": written}))
    assert sae.spec.model_name == read


def test_multimodal_hook_points_name_the_same_layer(tmp_path: Path) -> None:
    hook_point = "model.language_model.layers.17.output"
    sae = load_gemma_scope(publish(tmp_path / "s", PUBLISHED | {"hf_hook_point_in": hook_point}))
    assert sae.spec.layer == 17


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_read_back(tmp_path: Path, random_sae: RandomSae, dtype: torch.dtype) -> None:
    sae = random_sae(dtype=dtype)
    save_gemma_scope(tmp_path / "a", sae, {"note": "kept"})
    back = load_gemma_scope(tmp_path / "a")
    assert back.spec == sae.spec
    for name in ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D", "threshold_F"):
        assert torch.equal(getattr(back, name), getattr(sae, name))
        assert getattr(back, name).dtype == torch.float32
    assert load_file(tmp_path / "a" / "params.safetensors")["w_enc"].dtype == dtype
    assert json.loads((tmp_path / "a" / "config.json").read_text())["note"] == "kept"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["config.json", "params.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, random_sae: RandomSae) -> None:
    for name in ("a", "b"):
        save_gemma_scope(tmp_path / name, random_sae(), {})
    for file in ("config.json", "params.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_committed_size_fits(tmp_path: Path, random_sae: RandomSae) -> None:
    sae = random_sae(576, 4096, dtype=torch.bfloat16)
    save_gemma_scope(tmp_path / "a", sae, {})
    assert (tmp_path / "a" / "params.safetensors").stat().st_size < 12e6


def test_a_subtracted_b_dec_is_folded_in_when_saved(tmp_path: Path, random_sae: RandomSae) -> None:
    sae = dataclasses.replace(random_sae(), apply_b_dec_to_input=True)
    save_gemma_scope(tmp_path / "a", sae, {})
    back = load_gemma_scope(tmp_path / "a")
    x_TD = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    before, after = (encode(x_TD, each.weights("cpu")).dense() for each in (sae, back))
    assert float(before.sum()) > 0
    torch.testing.assert_close(after, before, rtol=2**-7, atol=1e-4)


def test_a_rounded_dictionary_is_half_as_large_and_another_one(tmp_path: Path, random_sae: RandomSae) -> None:
    sae = random_sae(64, 512)
    rounded = rounded_to_bfloat16(sae)
    save_gemma_scope(tmp_path / "a", sae, {})
    save_gemma_scope(tmp_path / "b", rounded, {})
    sizes = [(tmp_path / name / "params.safetensors").stat().st_size for name in ("a", "b")]
    assert sizes[1] < 0.55 * sizes[0]
    assert rounded.spec.sha256 != sae.spec.sha256
    assert load_gemma_scope(tmp_path / "b").spec == rounded.spec


def transposed() -> Tensor:
    return tensors()["w_enc"].t().contiguous()


def spoilt(value: float) -> Tensor:
    w_enc_DF = tensors()["w_enc"]
    w_enc_DF[2, 3] = value
    return w_enc_DF


@pytest.mark.parametrize(
    ("config", "changed", "says"),
    [
        ({"type": "clt"}, {}, "type is 'clt'; sae, transcoder, crosscoder are read"),
        ({"type": "crosscoder"}, {}, "is a crosscoder, but has its tensors in params.safetensors alone"),
        ({"type": "transcoder", "hf_hook_point_out": None}, {}, "a transcoder without hf_hook_point_out"),
        ({"architecture": "gated"}, {}, "architecture is 'gated'; jump_relu and topk are read"),
        ({"architecture": "topk"}, {}, "k is None; expected a positive whole number"),
        ({"input_norm": "batch_norm"}, {}, "input_norm is 'batch_norm'"),
        ({"affine_connection": True}, {}, "misses the affine_skip_connection"),
        ({}, {"affine_skip_connection": torch.zeros(8, 8)}, "has an affine_skip_connection"),
        ({"width": 16384}, {}, "width is 16384, but the encoder has 20"),
        ({"hf_hook_point_in": "somewhere"}, {}, "is 'somewhere', which is none of the places"),
        ({"hf_hook_point_in": "blocks.3.hook_mlp_in"}, {}, "before the MLP's norm to some"),
        ({"hf_hook_point_in": "model.layers.{3,4}.output"}, {}, "2 places; expected one"),
        ({}, {"threshold": None}, "misses threshold .has b_dec, b_enc, w_dec, w_enc."),
        ({}, {"w_enc": None, "b_enc": None}, "misses w_enc, b_enc"),
        ({}, {"w_dec": transposed().t().contiguous()}, r"w_dec has shape \(8, 20\), .* ask for \(20, 8\)"),
        ({}, {"b_enc": torch.zeros(19)}, r"b_enc has shape \(19,\)"),
        ({}, {"w_dec": torch.zeros(20, 4, 8)}, r"w_dec has shape \(20, 4, 8\)"),
        ({}, {"w_enc": torch.zeros(8)}, r"w_enc has shape \(8,\)"),
        ({}, {"w_enc": spoilt(float("nan"))}, "w_enc has 1 NaN or infinite values of 160"),
        ({}, {"b_dec": torch.full((8,), float("-inf"))}, "b_dec has 8 NaN or infinite values of 8"),
        ({}, {"threshold": torch.zeros(20, dtype=torch.int32)}, "threshold is torch.int32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], changed: dict[str, Tensor | None], says: str
) -> None:
    folder = publish(tmp_path / "layer_22_width_16k_l0_medium", PUBLISHED | config, **changed)
    with pytest.raises(SaeError, match=says):
        load_gemma_scope(folder)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=r"params.safetensors: no such file"):
        load_gemma_scope(tmp_path)
    folder = publish(tmp_path / "s")
    (folder / "config.json").write_text("{")
    with pytest.raises(SaeError, match="not readable JSON"):
        load_gemma_scope(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(SaeError, match="expected a JSON object, found list"):
        load_gemma_scope(folder)
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    (folder / "params.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(SaeError, match="not a readable safetensors file"):
        load_gemma_scope(folder)


def test_a_crosscoder_that_reads_several_layers_at_once_does_not_fit(
    tmp_path: Path, random_sae: RandomSae
) -> None:
    sae = random_sae(d_in=8, width=20)
    both = dataclasses.replace(sae, spec=dataclasses.replace(sae.spec, also_reads=("resid_post/5",)))
    with pytest.raises(SaeError, match="features read several layers does not fit"):
        save_gemma_scope(tmp_path / "a", both, {})
    assert not (tmp_path / "a").exists()
