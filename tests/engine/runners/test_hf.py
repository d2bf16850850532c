"""Hugging Face's models under the contract of every runner, over the families that dictionaries exist for."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.load import load_model, without_adapter
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.runners.forward import Forward, HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.errors import ConfigError

contract = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("contract.py"))))
CPU = torch.device("cpu")
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}
TEXT = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 16,
    "initializer_range": 0.2,
    **SLIDING,
}
VISION = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
# Windows are shorter than the prompts; Gemma's heads are wider together than the stream.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 16, **SLIDING},
    "gemma3": {"text_config": TEXT, "vision_config": {**VISION, "image_size": 28, "patch_size": 14}},
    "gpt2": {},
    "olmo2": {},
}
WITHOUT_MID = {"phi": {}, "gpt_neox": {}, "cohere": {}}
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_in", "mlp_out")


def load(folder: Path) -> Any:
    return load_model(resolve_model(str(folder), folder), torch.float32, CPU)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, make_model: Callable[..., Path]) -> Any:
    return load(make_model(request.param, **FAMILIES[request.param]))


@pytest.fixture
def case(model: Any) -> Any:
    return contract.Case(lambda hooks: HfRunner(model, hooks), model)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case: Any, check: Callable[[Any], None]) -> None:
    check(case)
