"""Every format that is read, one contract: what the publisher computes, and what is refused."""

import importlib.util
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu import Encoder, pre_activations
from ft_audit.sae.formats.build import Told
from ft_audit.sae.formats.gemma_scope import load_gemma_scope, save_gemma_scope
from ft_audit.sae.formats.known import find_format
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import load_sae


def load_published() -> ModuleType:
    """The module beside this file; tests are collected in a mode in which they cannot import each other."""
    spec = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


published = load_published()
D, F, K = published.D, published.F, published.K


@dataclass(frozen=True)
class Case:
    """One published layout, and what must be known of it once it is read."""

    name: str
    format: str
    write: Callable[[Path], Any]
    inputs: tuple[str, ...]
    model: str
    config: str | None = None
    """The config file's name, where there is one."""
    tensor: str = "w_enc"
    """A tensor that the file must have."""
    wrong: Mapping[str, Any] = field(default_factory=dict)
    """Keys for the config that do not fit."""
    says: str = ""
    """What is said of them."""
    outputs: tuple[str, ...] = ()
    activation: str = "jumprelu"
    width: int = F
    d_in: int = D
    package: str | None = None


LAYER = "layer_17_width_16k_l0_medium"
IT, GPT2 = "google/gemma-3-1b-it", "openai-community/gpt2"
NORM = "model.layers.17.{}_feedforward_layernorm.output"
WIDTH = {"width": 16384}
CASES = [
    Case(
        "gemma-scope-2-resid-post",
        "gemma-scope-2",
        published.gemma_2(f"resid_post/{LAYER}", "model.layers.17.output"),
        ("resid_post/17",),
        IT,
        "config.json",
        wrong=WIDTH,
        says="width is 16384, but the encoder has 96",
    ),
    Case(
        "gemma-scope-2-attn-out",
        "gemma-scope-2",
        published.gemma_2(f"attn_out/{LAYER}", "model.layers.17.self_attn.o_proj.input"),
        ("attn_z/17",),
        IT,
        "config.json",
        wrong={"type": "clt"},
        says="type is 'clt'",
    ),
    Case(
        "gemma-scope-2-mlp-out-without-config",
        "gemma-scope-2",
        published.gemma_2("mlp_out_all/layer_3_width_96_l0_small", None),
        ("mlp_out/3",),
        IT,
    ),
    Case(
        "gemma-scope-2-transcoder",
        "gemma-scope-2",
        published.gemma_2(f"transcoder/{LAYER}", NORM.format("pre"), NORM.format("post")),
        ("mlp_in/17",),
        IT,
        "config.json",
        outputs=("mlp_out/17",),
        wrong={"affine_connection": True},
        says="misses the affine_skip_connection",
    ),
    Case(
        "gemma-scope-2-transcoder-affine",
        "gemma-scope-2",
        published.gemma_2(
            f"transcoder_all/{LAYER}_affine", NORM.format("pre"), NORM.format("post"), affine=True
        ),
        ("mlp_in/17",),
        IT,
        "config.json",
        outputs=("mlp_out/17",),
        wrong={"type": "sae"},
        says="has an affine_skip_connection",
    ),
    Case(
        "gemma-scope-2-transcoder-without-config",
        "gemma-scope-2",
        published.gemma_2("transcoder_all/layer_3_width_96_l0_small_affine", None, affine=True),
        ("mlp_in/3",),
        IT,
        outputs=("mlp_out/3",),
    ),
    Case(
        "gemma-scope-2-topk",
        "gemma-scope-2",
        published.gemma_2(f"resid_post/{LAYER}", "model.layers.17.output", topk=K),
        ("resid_post/17",),
        IT,
        "config.json",
        wrong={"k": 0},
        says="k is 0; expected a positive",
        activation="topk",
    ),
    Case(
        "gemma-scope-2-crosscoder",
        "gemma-scope-2",
        published.gemma_2_crosscoder,
        tuple(f"resid_post/{layer}" for layer in (7, 13, 17, 22)),
        "google/gemma-3-1b-pt",
        "config.json",
        d_in=32,
        wrong={"hf_hook_point_in": "model.layers.{7,13}.output"},
        says="has 4 files .* for 2 layers",
    ),
    Case(
        "gemma-scope-1-res",
        "gemma-scope-1",
        published.gemma_1("res"),
        ("resid_post/20",),
        "google/gemma-2-2b",
        tensor="W_enc",
        width=1024,
    ),
    Case(
        "gemma-scope-1-att",
        "gemma-scope-1",
        published.gemma_1("att"),
        ("attn_z/20",),
        "google/gemma-2-2b",
        tensor="threshold",
        width=1024,
    ),
    *(
        Case(
            f"sae-lens-{name}",
            "sae-lens",
            published.lens(architecture, **settings),
            ("mlp_in/5",) if "transcoder" in architecture else ("resid_post/5",),
            "google/gemma-2-2b",
            "cfg.json",
            tensor="W_dec",
            package="sae_lens",
            activation=activation,
            outputs=("mlp_out/5",) if "transcoder" in architecture else (),
            wrong={"d_sae": 12},
            says="d_sae: width is 12, but the encoder has 96",
        )
        for name, architecture, activation, settings in [
            ("jumprelu", "jumprelu", "jumprelu", {}),
            ("jumprelu-unsubtracted", "jumprelu", "jumprelu", {"apply_b_dec_to_input": False}),
            ("standard", "standard", "relu", {}),
            ("topk", "topk", "topk", {"k": K}),
            ("topk-rescaled", "topk", "topk", {"k": K, "rescale_acts_by_decoder_norm": True}),
            ("topk-layer-norm", "topk", "topk", {"k": K, "normalize_activations": "layer_norm"}),
            ("constant-norm", "jumprelu", "jumprelu", {"normalize_activations": "constant_norm_rescale"}),
            ("transcoder", "jumprelu_transcoder", "jumprelu", {}),
            ("skip-transcoder", "jumprelu_skip_transcoder", "jumprelu", {}),
        ]
    ),
    *(
        Case(
            f"sparsify-{name}",
            "sparsify",
            published.sparse_coder(module, **settings),
            inputs,
            "EleutherAI/pythia-70m",
            "cfg.json",
            tensor="encoder.bias",
            package="sparsify",
            activation="topk",
            outputs=outputs,
            wrong=wrong,
            says=says,
        )
        for name, module, inputs, outputs, settings, wrong, says in [
            ("block", "layers.5", ("resid_post/5",), (), {}, {"num_latents": 7}, "width is 7, but"),
            ("mlp", "layers.5.mlp", ("mlp_out/5",), (), {}, {"activation": "groupmax"}, "is 'groupmax'"),
            (
                "transcoder",
                "layers.5.mlp",
                ("mlp_in/5",),
                ("mlp_out/5",),
                {"transcode": True},
                {"k": None},
                "k is None; expected",
            ),
            (
                "skip-transcoder",
                "layers.5.mlp",
                ("mlp_in/5",),
                ("mlp_out/5",),
                {"transcode": True, "skip_connection": True},
                {"skip_connection": False},
                "disagree",
            ),
        ]
    ),
    *(
        Case(
            f"dictionary-learning-{dict_class}",
            "dictionary-learning",
            published.trainer(dict_class),
            ("resid_post/12",),
            "google/gemma-2-2b",
            "config.json",
            activation=activation,
            tensor="W_enc" if dict_class[0] in "JM" else "encoder.weight",
            wrong={"trainer": wrong},
            says=says,
        )
        for dict_class, activation, wrong, says in [
            ("AutoEncoder", "relu", {"dict_class": "GatedAutoEncoder"}, "dict_class is 'GatedAutoEncoder'"),
            ("AutoEncoderTopK", "topk", {"dict_class": "AutoEncoderTopK", "dict_size": 5}, "width is 5, but"),
            ("BatchTopKSAE", "jumprelu", {"submodule_name": "mlp_out_layer_3", "layer": 12}, "layer is 12"),
            ("MatryoshkaBatchTopKSAE", "jumprelu", {"dict_class": "Own"}, "dict_class is 'Own'"),
            ("JumpReluAutoEncoder", "jumprelu", {"dict_class": "BatchTopKSAE"}, "threshold has shape"),
        ]
    ),
    *(
        Case(
            f"fork-{dict_class}",
            "dictionary-learning",
            published.fork(dict_class),
            ("resid_post/13",),
            "",
            "config.json",
            tensor="b_dec",
            wrong={"dict_class": "CrossCoder"},
            says="is 'CrossCoder'",
        )
        for dict_class in ("JumpReluAutoEncoder", "BatchTopKSAE")
    ),
    Case(
        "openai-topk",
        "openai",
        published.openai("TopK"),
        ("mlp_out/8",),
        GPT2,
        tensor="latent_bias",
        activation="topk",
    ),
    Case(
        "openai-relu",
        "openai",
        published.openai("ReLU"),
        ("mlp_out/8",),
        GPT2,
        tensor="pre_bias",
        activation="relu",
    ),
    Case(
        "llama-scope",
        "llama-scope",
        published.llama_scope,
        ("resid_post/15",),
        "meta-llama/Llama-3.1-8B",
        "hyperparams.json",
        tensor="decoder.bias",
        wrong={"hook_point_out": "blocks.15.hook_mlp_out"},
        says="transcoders are not read",
    ),
    Case(
        "qwen-scope",
        "qwen-scope",
        published.qwen_scope,
        ("resid_post/4",),
        "Qwen/Qwen3-1.7B-Base",
        tensor="W_dec",
        width=1024,
        activation="topk",
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if found.package is not None:
        pytest.importorskip(found.package)
    return found


@pytest.fixture(params=[case for case in CASES if case.config is not None], ids=lambda case: case.name)
def configured(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if found.package is not None:
        pytest.importorskip(found.package)
    return found


def inputs(case: Case, num_tokens: int = 64) -> Tensor:
    return 3.0 * torch.randn(num_tokens, case.d_in, generator=torch.Generator().manual_seed(1)) + 0.3


def near_the_cut(sae: JumpReluSae, x_TD: Tensor) -> Tensor:
    """Where a float32 sum in another order may decide otherwise [T, F]; hardly anywhere."""
    pre_TF = pre_activations(x_TD, sae.weights("cpu", torch.float32), torch.float64)
    cut_TF = sae.threshold_F.double().expand_as(pre_TF)
    if sae.topk is not None:
        cut_TF = torch.maximum(cut_TF, pre_TF.topk(sae.topk, dim=1).values[:, -1:])
        # The next one below may come in as well.
        below_T1 = pre_TF.where(pre_TF < cut_TF, -torch.inf).amax(dim=1, keepdim=True)
        near_TF = (cut_TF - below_T1 < 1e-4) & (pre_TF >= below_T1) & (pre_TF <= cut_TF)
    else:
        near_TF = (pre_TF - cut_TF).abs() < 1e-4
    assert float(near_TF.float().mean()) < 2e-3
    return near_TF


def test_it_computes_what_its_publisher_does(case: Case, tmp_path: Path) -> None:
    made, x_TD = case.write(tmp_path), inputs(case)
    sae = load_sae(str(made.path), tmp_path)
    rows = Encoder(sae.weights("cpu"), "cpu").encode(x_TD)
    want_TF, got_TF, near_TF = made.encode(x_TD), rows.dense(), near_the_cut(sae, x_TD)
    assert torch.equal((got_TF > 0) | near_TF, (want_TF > 0) | near_TF)
    assert 1.0 < rows.l0 < case.width
    torch.testing.assert_close(got_TF * ~near_TF, want_TF * ~near_TF, rtol=2**-8, atol=1e-4)
    y_TO = made.decode(got_TF, x_TD)
    torch.testing.assert_close(sae.reconstruct(rows, x_TD), y_TO, rtol=1e-4, atol=1e-3)
    error_T, square_T = sae.squared_errors(rows, x_TD, 2.0 * y_TO)
    torch.testing.assert_close(error_T, y_TO.square().sum(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(square_T, 4.0 * y_TO.square().sum(1), rtol=1e-3, atol=1e-3)


def test_it_is_known_for_what_it_is(case: Case, tmp_path: Path) -> None:
    made = case.write(tmp_path)
    sae = load_sae(str(made.path), tmp_path)
    assert find_format(made.path).name == case.format
    assert (sae.spec.inputs, sae.spec.outputs) == (case.inputs, case.outputs or case.inputs)
    assert (sae.spec.width, sae.spec.d_in, sae.spec.model_name) == (case.width, case.d_in, case.model)
    assert sae.activation == case.activation and sae.topk == (K if case.activation == "topk" else None)
    assert len(sae.spec.sha256) == 64 and "/" not in sae.spec.name


def test_it_is_the_same_in_this_projects_own_layout(case: Case, tmp_path: Path) -> None:
    sae, x_TD = load_sae(str(case.write(tmp_path).path), tmp_path), inputs(case)
    save_gemma_scope(tmp_path / "own" / "copy", sae, {})
    back = load_gemma_scope(tmp_path / "own" / "copy")
    kept = ("inputs", "outputs", "kind", "width", "d_in", "model_name", "name", "l0")
    assert [getattr(back.spec, name) for name in kept] == [getattr(sae.spec, name) for name in kept]
    assert (back.topk, back.input_norm) == (sae.topk, sae.input_norm)
    if not sae.apply_b_dec_to_input:  # which is folded in, and rounds
        assert back.spec.sha256 == sae.spec.sha256
    ours, theirs = (Encoder(each.weights("cpu"), "cpu").encode(x_TD) for each in (back, sae))
    near_TF = near_the_cut(sae, x_TD)
    torch.testing.assert_close(ours.dense() * ~near_TF, theirs.dense() * ~near_TF, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(back.reconstruct(theirs, x_TD), sae.reconstruct(theirs, x_TD))


def change(path: Path, changes: Mapping[str, Tensor | None]) -> None:
    """Write the file's tensors again, with some changed or left out."""
    if path.suffix == ".npz":
        arrays = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        kept = {name: value for name, value in (arrays | dict(changes)).items() if value is not None}
        np.savez(path, **{name: value.numpy() for name, value in kept.items()})
    elif path.suffix == ".pt":
        loaded = torch.load(path, weights_only=True)
        torch.save({k: v for k, v in (loaded | dict(changes)).items() if v is not None}, path)
    else:
        merged = load_file(path) | dict(changes)
        save_file({name: value for name, value in merged.items() if value is not None}, path)


def tensor_of(path: Path, name: str) -> Tensor:
    if path.suffix == ".npz":
        return torch.from_numpy(np.load(path)[name])
    loaded: dict[str, Tensor] = (
        torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)
    )
    return loaded[name].clone()


def test_a_missing_tensor_is_named(case: Case, tmp_path: Path) -> None:
    made = case.write(tmp_path)
    change(made.weights, {case.tensor: None})
    with pytest.raises(SaeError, match=f"misses {case.tensor}"):
        load_sae(str(made.path), tmp_path)


def test_values_that_are_no_numbers_are_named(case: Case, tmp_path: Path) -> None:
    made = case.write(tmp_path)
    spoilt = tensor_of(made.weights, case.tensor)
    spoilt.view(-1)[3] = float("nan")
    change(made.weights, {case.tensor: spoilt})
    with pytest.raises(SaeError, match=f"{case.tensor} has 1 NaN or infinite values of {spoilt.numel()}"):
        load_sae(str(made.path), tmp_path)


def test_whole_numbers_are_no_weights(case: Case, tmp_path: Path) -> None:
    made = case.write(tmp_path)
    change(made.weights, {case.tensor: tensor_of(made.weights, case.tensor).to(torch.int32)})
    with pytest.raises(SaeError, match=rf"{case.tensor} is torch\.int32"):
        load_sae(str(made.path), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_file_is_named(case: Case, share: float, tmp_path: Path) -> None:
    made = case.write(tmp_path)
    whole = made.weights.read_bytes()
    made.weights.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SaeError, match=f"{made.weights.name}: not a readable"):
        load_sae(str(made.path), tmp_path)


@pytest.mark.parametrize(
    "name", ["gemma-scope-1-res", "openai-topk", "qwen-scope", "dictionary-learning-BatchTopKSAE"]
)
def test_changed_bytes_are_harmless_or_refused(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == name)
    made, rng, refused = case.write(tmp_path), random.Random(0), 0
    whole = made.weights.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        # Where the structure lies: the first bytes, and the directory at the end.
        for place in (rng.randrange(1000), -1 - rng.randrange(1000)):
            damaged[place] = rng.randrange(256)
        made.weights.write_bytes(damaged)
        try:
            load_sae(str(made.path), tmp_path)
        except SaeError:
            refused += 1
    assert refused > 10


def test_a_config_that_does_not_fit_is_named(configured: Case, tmp_path: Path) -> None:
    made = configured.write(tmp_path)
    path = made.path / str(configured.config)
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(configured.wrong)))
    with pytest.raises(SaeError, match=configured.says):
        load_sae(str(made.path), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '"\\ud800"', "[" * 100_000])
def test_a_config_that_is_none_is_named(configured: Case, text: str, tmp_path: Path) -> None:
    made = configured.write(tmp_path)
    (made.path / str(configured.config)).write_text(text)
    with pytest.raises(SaeError, match=r"not readable JSON|expected a JSON object"):
        load_sae(str(made.path), tmp_path)


def test_a_hook_that_is_told_must_be_the_one_that_is_published(case: Case, tmp_path: Path) -> None:
    path = str(case.write(tmp_path).path)
    told = load_sae(path, tmp_path, told=Told(model_name="me/own"))
    assert told.spec.model_name == "me/own"
    if len(case.inputs) == 1:
        assert load_sae(path, tmp_path, told=Told(hook=case.inputs[0])).spec.inputs == case.inputs
        with pytest.raises(SaeError, match="--hook says resid_pre/1; leave --hook out"):
            load_sae(path, tmp_path, told=Told(hook="resid_pre/1"))


class Intruder:
    """What a pickle would call on loading."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "place", ["resid_post_layer_3/ae.pt", "gpt2-small/resid_post_mlp/autoencoders/8.pt", "layer4.sae.pt"]
)
def test_a_pickle_that_runs_code_is_refused(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"encoder.weight": Intruder(tmp_path / "trace")}, path)
    ref = path.parent if path.name == "ae.pt" else path
    with pytest.raises(SaeError, match="not a readable weights-only torch file"):
        load_sae(str(ref), tmp_path)
    assert not (tmp_path / "trace").exists()


def test_an_archive_with_objects_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_3" / "width_1k" / "average_l0_7"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SaeError, match="not a readable npz file"):
        load_sae(str(folder), tmp_path)


def test_what_is_no_dictionary_is_told_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(SaeError, match=r"params\.npz \(gemma-scope-1\).*\*\.pt \(openai\)"):
        load_sae(str(tmp_path), tmp_path)
