"""Loading: whole, finite, without any code of the model's own, and the parts of every family found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.load import load_model, load_tokenizer, pick_device
from ft_audit.engine.models.reference import resolve_model
from ft_audit.errors import ConfigError, ModelError

CPU = torch.device("cpu")
UP = "model.layers.2.mlp.up_proj.weight"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(resolve_model(str(folder), folder), dtype, CPU)


def test_weights_and_dtype_are_those_asked_for(tiny_base: Path) -> None:
    from safetensors.torch import load_file

    held = load_file(tiny_base / "model.safetensors")
    model = load(tiny_base)
    assert not model.training and set(held) == set(dict(model.named_parameters()))
    assert all(torch.equal(parameter, held[name]) for name, parameter in model.named_parameters())
    halves = load(tiny_base, torch.bfloat16)
    assert {parameter.dtype for parameter in halves.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], value: float
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][5, 7] = value

    folder = copy_model(tiny_base, tmp_path / "m", weights=spoil)
    with pytest.raises(ModelError, match=rf"parameter {UP} holds NaN or infinite values; re-export"):
        load(folder)


def test_infinities_that_cancel_are_seen(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][0, :2] = torch.tensor([float("inf"), float("-inf")])

    with pytest.raises(ModelError, match=UP):
        load(copy_model(tiny_base, tmp_path / "m", weights=spoil))


def test_large_weights_whose_sum_overflows_are_no_mistake(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def swell(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][:] = 3e38

    assert load(copy_model(tiny_base, tmp_path / "m", weights=swell)).config.hidden_size == 32


def test_missing_weights_are_never_made_up(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[UP], weights["model.norm.weight"]

    with pytest.raises(ModelError, match=rf"lack {UP} \(and 1 more weights\); save the whole model again"):
        load(copy_model(tiny_base, tmp_path / "m", weights=drop))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "nonesuch"}, "nonesuch"),
        ({"intermediate_size": 48}, "mismatched"),
        ({"hidden_size": "thirty-two"}, "hidden_size"),
    ],
)
def test_a_model_that_transformers_cannot_load_is_a_user_s_mistake(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], config: dict[str, Any], says: str
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m", config)
    with pytest.raises(ModelError, match="cannot be loaded: ") as said:
        load(folder)
    assert says in str(said.value)


def test_a_damaged_weight_file_is_a_user_s_mistake(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("model_type", ["llama", "of_their_own"])
def test_code_that_comes_with_a_model_never_runs(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], model_type: str
) -> None:
    auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    folder = copy_model(tiny_base, tmp_path / "m", {"model_type": model_type, "auto_map": auto})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "auto_map": auto}))
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\nM = T = C\n")
    source = resolve_model(str(folder), tmp_path)
    if model_type == "llama":
        assert type(load_model(source, torch.float32, CPU)).__module__.startswith("transformers.")
        assert len(load_tokenizer(source)) == 400
    else:
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(source, torch.float32, CPU)
    assert not ran.exists()


def test_a_folder_without_a_tokenizer_is_refused(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match=f"no tokenizer that can be read in {folder}"):
        load_tokenizer(resolve_model(str(folder), tmp_path))


def test_devices_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"models\.device: 'tpu' is not available here; use auto or cpu"):
        pick_device("tpu")
    for cuda, mps, first in ((False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert pick_device("auto") == torch.device(first)
        if not cuda:
            with pytest.raises(ConfigError, match="'cuda' is not available here"):
                pick_device("cuda")


@pytest.mark.parametrize(
    ("family", "changes", "attribute"),
    [
        ("llama", {}, "layers"),
        ("gemma3_text", {}, "layers"),
        ("qwen3", {}, "layers"),
        ("gpt2", {}, "h"),
        ("gpt_neox", {}, "layers"),
        ("mixtral", {"num_local_experts": 4}, "layers"),
    ],
)
def test_the_parts_of_a_family_are_found(
    make_model: Callable[..., Path], family: str, changes: dict[str, Any], attribute: str
) -> None:
    model = load(make_model(family, **changes))
    found = anatomy(model)
    assert (found.attribute, found.num_layers, found.width) == (attribute, 4, 32)
    assert len(getattr(found.parent, attribute)) == 4
    ids = torch.arange(12).view(1, 12)
    with torch.inference_mode():
        whole = model(ids).logits
        parts = found.head(found.backbone(input_ids=ids).last_hidden_state)
    assert torch.equal(whole, parts)


def test_a_model_that_also_sees_gives_its_language_blocks(make_model: Callable[..., Path]) -> None:
    text = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "head_dim": 8,
    }
    # As many blocks for the pictures as for the words.
    vision = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    folder = make_model(
        "gemma3", text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}
    )
    model = load(folder)
    found = anatomy(model)
    names = {id(module): name for name, module in model.named_modules()}
    assert "vision" not in names[id(found.parent)] and "language_model" in names[id(found.parent)]
    assert found.width == 32


def test_a_model_without_a_list_of_blocks_is_refused(tiny_base: Path) -> None:
    model = load(tiny_base)
    model.config.num_hidden_layers = 5
    with pytest.raises(ModelError, match="LlamaForCausalLM: no list of 5 blocks found"):
        anatomy(model)
