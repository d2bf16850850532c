"""Other publishers' files through SAELens's own loaders, which stand between them and most of their users."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from ft_audit.kernels.jumprelu import Encoder, pre_activations
from ft_audit.sae.load import load_sae

pytest.importorskip("sae_lens")


def load_published() -> ModuleType:
    """The module beside this file; tests are collected in a mode in which they cannot import each other."""
    spec = importlib.util.spec_from_file_location("published_again", Path(__file__).with_name("published.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


published = load_published()
D = published.D
SITE = "model.layers.17.output"
NORM = "model.layers.17.{}_feedforward_layernorm.output"
LAYER = "layer_17_width_16k_l0_medium"
# SAELens knows the widths of the models themselves.
SMALL = {"d_in": D, "d_sae": 1024, "dtype": "float32"}
CASES = {
    "gemma-scope-2": ("gemma_3", published.gemma_2(f"resid_post/{LAYER}", SITE), {}),
    "gemma-scope-2-without-config": (
        "gemma_3",
        published.gemma_2("mlp_out_all/layer_3_width_96_l0_small", None),
        {},
    ),
    "gemma-scope-2-transcoder": (
        "gemma_3",
        published.gemma_2(f"transcoder/{LAYER}", NORM.format("pre"), NORM.format("post"), affine=True),
        {},
    ),
    "gemma-scope-1": ("gemma_2", published.gemma_1("res"), SMALL),
    "llama-scope": ("llama_scope", published.llama_scope, {"dtype": "float32"}),
    "qwen-scope": ("qwen_scope", published.qwen_scope, SMALL),
    **{
        f"dictionary-learning-{dict_class}": ("dictionary_learning_1", published.trainer(dict_class), {})
        for dict_class in ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder")
    },
}


def through_saelens(loader: str, path: Path, root: Path, overrides: dict[str, Any]) -> Any:
    """The dictionary at `path` as SAELens makes it of a repository, whose files are those under `root`."""
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.registry import get_sae_class

    repository = path.relative_to(root).parts[0]
    folder = path.relative_to(root / repository).as_posix()
    found, state, _ = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader](
        f"owner/{repository}", folder, "cpu", False, overrides
    )
    config = loaders.handle_config_defaulting(found)
    kind, config_class = get_sae_class(config["architecture"])
    sae: Any = kind(config_class.from_dict(config))
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    if config.get("normalize_activations") == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(D**0.5 / 10.8125)  # out of SAELens's list
    return sae


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SAELens's fetching answered from a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens.loading import pretrained_sae_loaders as loaders

    def fetch(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        path = tmp_path / repo_id.partition("/")[2] / (subfolder or "") / filename
        if not path.is_file():
            raise LocalEntryNotFoundError(str(path))
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return {name: list(tensor.shape) for name, tensor in load_file(fetch(repo_id, filename)).items()}

    monkeypatch.setattr(loaders, "hf_hub_download", fetch)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


@pytest.mark.parametrize("name", list(CASES))
def test_saelens_makes_the_same_of_it(name: str, offline_hub: Path) -> None:
    loader, write, overrides = CASES[name]
    writing: Callable[[Path], Any] = write
    made = writing(offline_hub)
    if loader == "llama_scope":
        # SAELens takes the decoder's norms for 1, as those of the release nearly are.
        tensors = load_file(made.weights)
        tensors["decoder.weight"] /= tensors["decoder.weight"].norm(dim=0)
        save_file(tensors, made.weights)
    ours = load_sae(str(made.path), offline_hub)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = through_saelens(loader, made.path, offline_hub, dict(overrides))
    x_TD = 3.0 * torch.randn(64, D, generator=torch.Generator().manual_seed(1))
    rows = Encoder(ours.weights("cpu"), "cpu").encode(x_TD)
    with torch.no_grad():
        want_TF, want_TO = theirs.encode(x_TD), theirs(x_TD)
        if loader == "gemma_3" and ours.w_skip_DO is not None:
            assert torch.equal(theirs.W_skip.T, ours.w_skip_DO)
    pre_TF = pre_activations(x_TD, ours.weights("cpu", torch.float32))
    near_TF = (pre_TF - ours.threshold_F).abs() < 1e-4
    torch.testing.assert_close(rows.dense() * ~near_TF, want_TF * ~near_TF, rtol=2**-8, atol=1e-4)
    assert float((ours.reconstruct(rows, x_TD) - want_TO).norm() / want_TO.norm()) < 5e-3
    assert rows.l0 > 1
