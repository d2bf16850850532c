"""Published dictionaries that compute something else than what is read: refused by name, with what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.formats.build import Told
from ft_audit.sae.hook_names import gemma_name, read_hooks
from ft_audit.sae.load import load_sae

D, F = 8, 20


def draw(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def lens(folder: Path, **changes: Any) -> Path:
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": False, "d_sae": F, "k": 3}
    metadata = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2"} | changes.pop("metadata", {})
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config | changes | {"metadata": metadata}))
    tensors = draw(W_enc=(D, F), W_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "gated"}, "architecture is 'gated'; standard, topk, jumprelu"),
        ({"normalize_activations": "expected_average_only_in"}, "fold them into the weights with SAELens"),
        (
            {
                "architecture": "jumprelu_transcoder",
                "normalize_activations": "layer_norm",
                "metadata": {"hook_name_out": "blocks.3.hook_mlp_out"},
            },
            "a transcoder that normalises its input",
        ),
        ({"architecture": "jumprelu_transcoder"}, "a transcoder without hook_name_out; add the key"),
        (
            {"metadata": {"hook_name": "blocks.3.ln2.hook_normalized"}},
            "is a normed stream without the norm's",
        ),
        ({"metadata": {"hook_name": "hook_embed"}}, "is 'hook_embed', which is none of the places"),
        (
            {"metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": True}}},
            "whose mean TransformerLens takes out",
        ),
        ({"architecture": "topk", "k": 2.5}, "k is 2.5; expected a positive whole number"),
    ],
)
def test_saelens(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=says):
        load_sae(str(lens(tmp_path / "release" / "layer_3", **changes)), tmp_path)


def test_saelens_before_version_6(tmp_path: Path) -> None:
    folder = lens(tmp_path / "old", architecture="standard", metadata={})
    config = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "d_sae": F}
    config |= {"hook_point": "blocks.7.hook_resid_pre", "model_name": "gpt2-small"}
    (folder / "cfg.json").write_text(json.dumps(config))
    sae = load_sae(str(folder), tmp_path)
    assert (sae.topk, sae.spec.inputs, sae.spec.model_name) == (4, ("resid_pre/7",), "gpt2-small")
    assert sae.apply_b_dec_to_input  # what those files meant by saying nothing


def test_a_huggingface_name_says_more_than_transformerlenss(tmp_path: Path) -> None:
    names = {"hook_name": "blocks.9.hook_mlp_in", "hook_name_out": "blocks.9.hook_mlp_out"}
    names |= {"hf_hook_name": "model.layers.9.pre_feedforward_layernorm.output"}
    folder = lens(tmp_path / "t", architecture="jumprelu_transcoder", metadata=names)
    spec = load_sae(str(folder), tmp_path).spec
    assert (spec.inputs, spec.outputs) == (("mlp_in/9",), ("mlp_out/9",))


def sparsify(folder: Path, model: str = "EleutherAI/pythia-70m", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({"k": 3, "num_latents": F, "d_in": D} | changes))
    (folder.parent / "config.json").write_text(json.dumps({"model": model}))
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "encoder.bias": (F,)}
    save_file(draw(**shapes, W_dec=(F, D), b_dec=(D,)), folder / "sae.safetensors")
    return folder


@pytest.mark.parametrize(
    ("module", "model", "changes", "says"),
    [
        ("mine", "m/m", {}, "nothing says which place of the model it reads"),
        ("layers.5.mlp.up_proj", "m/m", {}, "nothing says which place"),
        ("layers.5.self_attn", "m/m", {"transcode": True}, "nothing says which place"),
        ("layers.5.mlp", "google/gemma-2-2b", {}, "before the norm that follows it"),
        ("layers.5", "m/m", {"signed": True}, "activation is 'signed topk'"),
    ],
)
def test_sparsify(module: str, model: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=says):
        load_sae(str(sparsify(tmp_path / "run" / module, model, **changes)), tmp_path)


def test_the_stream_of_gemma_is_no_half(tmp_path: Path) -> None:
    sae = load_sae(str(sparsify(tmp_path / "run" / "layers.5", "google/gemma-2-2b")), tmp_path)
    assert sae.spec.inputs == ("resid_post/5",)


def save_trainer(folder: Path, dict_class: str, *, threshold: float = 0.5, **about: Any) -> Path:
    folder.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
    tensors = draw(**shapes, **{"encoder.bias": (F,)}, b_dec=(D,))
    torch.save(tensors | {"threshold": torch.tensor(threshold), "k": torch.tensor(3)}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": dict_class} | about}))
    return folder


def test_a_batchtopk_that_learnt_no_threshold(tmp_path: Path) -> None:
    folder = save_trainer(tmp_path / "resid_post_layer_3" / "t", "BatchTopKSAE", threshold=-1.0)
    with pytest.raises(SaeError, match="the threshold is -1, so training ended before one was learnt"):
        load_sae(str(folder), tmp_path)


def test_a_trainer_that_names_no_place_must_be_told_one(tmp_path: Path) -> None:
    folder = save_trainer(tmp_path / "trainer_0", "BatchTopKSAE", layer=12)
    with pytest.raises(SaeError, match="submodule_name: nothing says which place"):
        load_sae(str(folder), tmp_path)
    assert load_sae(str(folder), tmp_path, told=Told("mlp_out/12")).spec.inputs == ("mlp_out/12",)


@pytest.mark.parametrize(
    ("activation", "settings", "says"),
    [
        ("Identity", {}, "activation is 'Identity'; ReLU and TopK are read"),
        ("TopK", {"k": 3, "postact_fn": "Identity"}, "'TopK' with Identity"),
        ("TopK", {}, r"activation_state_dict\.k is None"),
    ],
)
def test_openai(activation: str, settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "resid_post_mlp_v5_32k" / "autoencoders" / "8.pt"
    path.parent.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
    tensors = draw(**shapes, pre_bias=(D,), latent_bias=(F,))
    torch.save({**tensors, "activation": activation, "activation_state_dict": settings}, path)
    with pytest.raises(SaeError, match=says):
        load_sae(str(path), tmp_path)


def test_openais_neurons_are_no_place_here(tmp_path: Path) -> None:
    path = tmp_path / "gpt2-small" / "mlp_post_act" / "autoencoders" / "0.pt"
    path.parent.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
    torch.save(draw(**shapes, pre_bias=(D,), latent_bias=(F,)), path)
    with pytest.raises(SaeError, match="'mlp_post_act/0', which is none of the places"):
        load_sae(str(path), tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"act_fn": "topk"}, "act_fn is 'topk'; only jumprelu is read"),
        ({"use_glu_encoder": True}, "a pre-encoder bias or a gated encoder"),
        ({"dataset_average_activation_norm": None}, "in is None; expected a positive number"),
        ({"jump_relu_threshold": -1}, "jump_relu_threshold is -1; expected a positive"),
        ({"hook_point_in": "blocks.3.ln2.hook_normalized"}, "a normed stream without the norm's weights"),
        ({"d_sae": 5}, "d_sae: width is 5, but the encoder has 20"),
    ],
)
def test_llama_scope(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    config = {"act_fn": "jumprelu", "d_sae": F, "dataset_average_activation_norm": {"in": 5.0}}
    config |= {"jump_relu_threshold": 0.5, "hook_point_in": "blocks.3.hook_resid_post"}
    (tmp_path / "hyperparams.json").write_text(json.dumps(config | changes))
    (tmp_path / "checkpoints").mkdir()
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (F, D), "decoder.weight": (D, F)}
    tensors = draw(**shapes, **{"encoder.bias": (F,), "decoder.bias": (D,)})
    save_file(tensors, tmp_path / "checkpoints" / "final.safetensors")
    with pytest.raises(SaeError, match=says):
        load_sae(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("layer4.sae.pt", "k is in the repository's name alone"),
        ("SAE-Res-Qwen3-8B-Base-W64K-L0_50/layer4.sae.pt", "has 20 features, but the repository is called"),
    ],
)
def test_qwen_scope(place: str, says: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    torch.save(draw(W_enc=(F, D), W_dec=(D, F), b_enc=(F,), b_dec=(D,)), tmp_path / place)
    with pytest.raises(SaeError, match=says):
        load_sae(str(tmp_path / place), tmp_path)


def save_archive(folder: Path, **more: Tensor) -> Path:
    folder.mkdir(parents=True)
    tensors = draw(W_enc=(D, 1024), W_dec=(1024, D), b_enc=(1024,), b_dec=(D,), threshold=(1024,)) | more
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    return folder


@pytest.mark.parametrize(
    ("place", "more", "says"),
    [
        (
            "gemma-scope-2b-pt-transcoders/layer_3/width_1k/average_l0_5",
            {},
            "transcoders of Gemma Scope 1 read a",
        ),
        ("gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_5", {}, "but the encoder has 1024 features"),
        ("gemma-scope-2b-pt-res/embedding/width_1k/average_l0_5", {}, "nothing says which place"),
        (
            "gemma-scope-2b-pt-res/layer_3/width_1k/average_l0_5",
            {"scaling_factor": torch.full((1024,), 2.0)},
            "a scaling_factor other than 1",
        ),
    ],
)
def test_gemma_scope_1(place: str, more: dict[str, Tensor], says: str, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match=says):
        load_sae(str(save_archive(tmp_path / place, **more)), tmp_path)


def test_gemma_scope_1_of_a_tuned_model_knows_which(tmp_path: Path) -> None:
    folder = save_archive(tmp_path / "gemma-scope-9b-it-mlp" / "layer_20" / "width_1k" / "average_l0_47")
    spec = load_sae(str(folder), tmp_path).spec
    assert (spec.model_name, spec.inputs, spec.l0) == ("google/gemma-2-9b-it", ("mlp_out/20",), 47.0)
    assert spec.name == "layer_20-width_1k-average_l0_47"


@pytest.mark.parametrize(
    ("name", "hooks"),
    [
        ("model.language_model.layers.17.output", ("resid_post/17",)),
        ("transformer.h.3.input", ("resid_pre/3",)),
        ("model.layers.{5,9,12}.output", ("resid_post/5", "resid_post/9", "resid_post/12")),
        ("blocks.0.attn.hook_z", ("attn_z/0",)),
        ("blocks.11.hook_resid_mid", ("resid_mid/11",)),
        ("attn_out/4", ("attn_out/4",)),
    ],
)
def test_names_of_hooks(name: str, hooks: tuple[str, ...]) -> None:
    assert read_hooks(name, "here") == hooks
    assert read_hooks(gemma_name(hooks), "here") == hooks


@pytest.mark.parametrize(
    "name", ["", "layers", "resid_post/-1", "model.layers.{}.output", "model.layers.x.output"]
)
def test_what_is_no_name_of_a_hook(name: str) -> None:
    with pytest.raises(SaeError, match=r"here is '.*', which is none of the places that can be read"):
        read_hooks(name, "here")


@pytest.mark.parametrize("name", ["../../etc/x", "sly\x1b[2Jname", "..", "a/b"])
def test_a_name_out_of_a_file_becomes_plain(
    name: str, tmp_path: Path, write_gemma_scope: Callable[..., Path]
) -> None:
    folder = write_gemma_scope(tmp_path / "s", name=name)
    read = load_sae(str(folder), tmp_path).spec.name
    assert read and not read.startswith(".") and read.isprintable() and "/" not in read


@pytest.fixture
def write_gemma_scope() -> Callable[..., Path]:
    def write(folder: Path, **config: Any) -> Path:
        folder.mkdir(parents=True)
        tensors = draw(w_enc=(D, F), w_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
        save_file(tensors, folder / "params.safetensors")
        told = {"hf_hook_point_in": "model.layers.3.output", "type": "sae"} | config
        (folder / "config.json").write_text(json.dumps(told))
        return folder

    return write
