"""Quantised checkpoints: plain weights where they can be had here, else refused by name with the fix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.tokens.padded import PaddedBatch
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
BLOCK = 16
FP8 = {
    "quant_method": "fp8",
    "weight_block_size": [BLOCK, BLOCK],
    "activation_scheme": "dynamic",
    "modules_to_not_convert": ["lm_head"],
}


def load(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    return load_model(resolve_model(str(folder), folder), dtype, CPU, **settings)


def blocks_of(weight: Tensor) -> Tensor:
    rows, columns = (size // BLOCK for size in weight.shape)
    return weight.view(rows, BLOCK, columns, BLOCK)


def quantise(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn every projection into float8 with a scale for each block, and return what the pairs stand for."""
    meant = {}
    for name in [name for name in weights if "proj" in name]:
        blocks = blocks_of(weights[name])
        scale = blocks.abs().amax((1, 3)) / 448
        low = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        meant[name] = (low.float() * scale[:, None, :, None]).reshape(weights[name].shape)
        weights[name] = low.reshape(weights[name].shape)
        weights[f"{name}_scale_inv"] = scale
    return meant


@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "head": False}], ids=["whole", "part"])
def test_float8_weights_become_the_numbers_that_they_stand_for(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], settings: dict[str, Any]
) -> None:
    meant: dict[str, Tensor] = {}
    folder = copy_model(
        tiny_base,
        tmp_path / "m",
        {"quantization_config": FP8},
        lambda weights: meant.update(quantise(weights)),
    )
    model = load(folder, **settings)
    held = dict(model.named_parameters())
    compared = [name for name in meant if name in held]
    assert len(compared) == (7 * 2 if settings else 7 * 4)
    for name in compared:
        assert held[name].dtype == torch.float32
        # transformers multiplies in bfloat16.
        torch.testing.assert_close(held[name], meant[name], rtol=1e-2, atol=1e-3)
    assert not hasattr(model.config, "quantization_config") and not getattr(model, "is_quantized", False)
    batch = PaddedBatch(torch.arange(3, 23)[None], torch.zeros(20).long(), torch.arange(20), torch.arange(20))
    assert bool(torch.isfinite(HfRunner(model, [HookPoint(1)]).run(batch).hooks["resid_post/1"]).all())


@pytest.mark.parametrize(
    ("quantisation", "says"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            "quantised with gptq, which transformers cannot turn into plain",
        ),
        ({"quant_method": "awq", "bits": 4}, "quantised with awq, which transformers cannot turn into plain"),
        ({"quant_method": "of_their_own"}, "quantised with of_their_own, which transformers cannot"),
        ({}, "quantised with an unnamed method, which transformers cannot"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes_4bit .*install bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes_8bit .*install bitsandbytes"),
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {}},
            "compressed-tensors .*install compressed-tensors",
        ),
    ],
    ids=lambda value: str(value.get("quant_method")) if isinstance(value, dict) else "",
)
def test_what_cannot_be_made_plain_here_is_refused_by_name(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], quantisation: dict[str, Any], says: str
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m", {"quantization_config": quantisation})
    with pytest.raises(ModelError, match=f"(?s){says}.*give the folder saved in bfloat16"):
        load(folder)
