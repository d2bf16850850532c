"""Gemma Scope 2's files: written and read back, read as published, and refused by name."""

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
    ("name", "layer", "l0"),
    [("layer_7_width_262k_l0_big", 7, None), ("layer_12_width_1m_l0_small_seed_1", 12, None)],
)
def test_a_folder_without_config_is_known_by_its_name(
    tmp_path: Path, name: str, layer: int, l0: float | None
) -> None:
    sae = load_gemma_scope(publish(tmp_path / name, None))
    assert (sae.spec.layer, sae.spec.l0, sae.spec.hook_point) == (layer, l0, f"model.layers.{layer}.output")


def test_a_name_without_a_layer_needs_a_config(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=r"hf_hook_point_in.*layer_22_width_16k_l0_medium.*add the key"):
        load_gemma_scope(publish(tmp_path / "my_sae", None))


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
    import dataclasses

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
        ({"type": "transcoder"}, {}, "type is 'transcoder'; only plain dictionaries"),
        ({"type": "crosscoder"}, {}, "type is 'crosscoder'"),
        ({"architecture": "topk"}, {}, "architecture is 'topk'; only jump_relu"),
        ({"affine_connection": True}, {}, "affine skip connection"),
        ({}, {"affine_skip_connection": torch.zeros(8, 8)}, "affine skip connection"),
        ({"width": 16384}, {}, "width is 16384, but w_enc in params.safetensors has 20"),
        ({"hf_hook_point_in": "model.layers.3.self_attn.o_proj.input"}, {}, "only the block output"),
        ({"hf_hook_point_in": "somewhere"}, {}, "is 'somewhere'; expected model.layers.L.output"),
        ({}, {"threshold": None}, "misses threshold .has b_dec, b_enc, w_dec, w_enc."),
        ({}, {"w_enc": None, "b_enc": None}, "misses w_enc, b_enc"),
        ({}, {"w_dec": transposed().t().contiguous()}, r"w_dec has shape \(8, 20\), .* asks for \(20, 8\)"),
        ({}, {"b_enc": torch.zeros(19)}, r"b_enc has shape \(19,\)"),
        ({}, {"w_dec": torch.zeros(20, 4, 8)}, "crosscoders and transposed files"),
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
    (folder / "params.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(SaeError, match="not a readable safetensors file"):
        load_gemma_scope(folder)
