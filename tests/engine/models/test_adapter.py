"""Adapters: on the resident base, off it without a trace, and refused where they are no plain LoRA for it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.lora import UNDERSTOOD, check_lora
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
IDS = torch.arange(3, 43).view(2, 20)
A = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> ModelSource:
    return resolve_model(str(tiny_base), tiny_base)


def load(adapter: Path, base: ModelSource, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(resolve_model(str(adapter), adapter, base), dtype, CPU)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(input_ids=IDS).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 4}},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"target_modules": ["up_proj"], "trainable_token_indices": [5, 6]},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_switched_off_it_is_the_plain_base_bit_for_bit(
    make_adapter: Callable[..., Path], base: ModelSource, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    plain = logits(load_model(base, dtype, CPU))
    model = load(make_adapter(**settings), base, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    tuned = logits(model)
    with without_adapter(model) as off:
        assert off is model
        assert torch.equal(logits(off), plain)
    assert torch.equal(logits(model), tuned)
    assert (tuned - plain).abs().max() > 0.1


def test_a_full_model_has_nothing_to_switch_off(base: ModelSource) -> None:
    model = load_model(base, torch.float32, CPU)
    with without_adapter(model) as off:
        assert off is model


def test_an_adapter_of_a_wider_base_does_not_fit(
    make_model: Callable[..., Path], make_adapter: Callable[..., Path], base: ModelSource
) -> None:
    wider = make_adapter(make_model(hidden_size=48))
    with pytest.raises(ModelError, match="the adapter does not fit its base"):
        load(wider, base)


def test_an_adapter_of_a_deeper_base_does_not_fit(
    make_model: Callable[..., Path], make_adapter: Callable[..., Path], base: ModelSource
) -> None:
    deeper = make_adapter(make_model(num_hidden_layers=6))
    with pytest.raises(ModelError, match=r"layers\.4\..* and \d+ more are in its file, but no part of this"):
        load(deeper, base)


def test_an_adapter_of_another_family_does_not_fit(
    make_model: Callable[..., Path], make_adapter: Callable[..., Path], base: ModelSource
) -> None:
    other = make_adapter(make_model("gpt2"), target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(ModelError, match=r"the adapter does not fit its base: (?s:.*)c_attn"):
        load(other, base)


def test_a_lacking_weight_is_not_made_up(
    tiny_adapter: Path, base: ModelSource, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[A]

    with pytest.raises(ModelError, match=rf"{A} is not in its file"):
        load(copy_model(tiny_adapter, tmp_path / "a", weights=drop), base)


def test_a_weight_of_the_base_is_not_overwritten(
    tiny_adapter: Path, base: ModelSource, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    """PEFT would load it, and the base on the same weights would be another model."""

    def smuggle(weights: dict[str, torch.Tensor]) -> None:
        weights["base_model.model.model.norm.weight"] = torch.full((32,), 3.0)

    with pytest.raises(ModelError, match=r"model\.norm\.weight is in its file, but no part of this LoRA"):
        load(copy_model(tiny_adapter, tmp_path / "a", weights=smuggle), base)


def test_a_weight_that_is_no_number_is_named(
    tiny_adapter: Path, base: ModelSource, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[A][0, 0] = float("nan")

    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.down_proj\.lora_A\.default\.weight holds NaN"):
        load(copy_model(tiny_adapter, tmp_path / "a", weights=spoil), base)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base's own weights"),
        ({"init_lora_weights": "olora"}, "'olora' changes the base's own weights"),
        ({"bias": "all"}, "bias 'all' is no plain LoRA"),
        ({"layer_replication": [[0, 3], [1, 4]]}, "layer_replication"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens"),
        ({"megatron_config": {"x": 1}}, "megatron_config"),
        ({"peft_type": "NONESUCH"}, r"adapter_config\.json cannot be read"),
        ({"r": None}, "the adapter does not fit its base"),
    ],
    ids=lambda value: (
        next(iter(value)) + "=" + str(next(iter(value.values()))) if isinstance(value, dict) else ""
    ),
)
def test_an_adapter_that_is_no_plain_lora_is_refused(
    tiny_adapter: Path,
    base: ModelSource,
    tmp_path: Path,
    copy_model: Callable[..., Path],
    config: dict[str, Any],
    says: str,
) -> None:
    folder = copy_model(tiny_adapter, tmp_path / "a", config)
    with pytest.raises(ModelError, match=says):
        load(folder, base)


def test_another_kind_of_adapter_is_refused(tiny_adapter: Path, base: ModelSource, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(tiny_adapter, folder)
    config = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a IA3 adapter; only LoRA adapters are read: merge it"):
        load(folder, base)


def test_every_setting_that_is_let_through_exists() -> None:
    """A name that PEFT no longer has would let nothing through and hide a spelling mistake."""
    assert {field.name for field in dataclasses.fields(LoraConfig)} >= UNDERSTOOD
    check_lora(LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.1), "ref")
