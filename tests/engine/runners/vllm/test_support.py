"""What vLLM cannot read is refused by name before anything is loaded; no vLLM is needed to say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.vllm import open_vllm_generator, open_vllm_runner
from ft_audit.engine.runners.vllm.norm import final_norm
from ft_audit.engine.runners.vllm.support import extraction_ids, lora_rank
from ft_audit.errors import ConfigError, MissingExtraError, ModelError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(make_model: Callable[..., Path]) -> ModelSource:
    return resolve_model(str(make_model("llama")), Path())


def start(source: ModelSource, *hooks: HookPoint, max_prompt_tokens: int = 64) -> Any:
    return open_vllm_runner(
        source, hooks or [HookPoint(1)], dtype=torch.float32, device=CPU, max_prompt_tokens=max_prompt_tokens
    )


def test_ids_count_the_blocks_that_have_run() -> None:
    hooks = [HookPoint(3), HookPoint(0, "resid_pre"), HookPoint(3, "resid_pre"), HookPoint(2)]
    assert extraction_ids(hooks, 4) == (0, 3, 4)


@pytest.mark.parametrize("site", ["resid_mid", "attn_z", "attn_out", "mlp_in", "mlp_out"])
def test_another_site_is_refused(base: ModelSource, site: str) -> None:
    with pytest.raises(ConfigError, match=f"not {site}/1: give precompute.runner hf"):
        start(base, HookPoint(0), HookPoint(1, site))


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # the second calls its number of blocks otherwise
def test_a_block_that_is_not_there(make_model: Callable[..., Path], family: str) -> None:
    source = resolve_model(str(make_model(family)), Path())
    with pytest.raises(ConfigError, match="layer 4 does not exist; this model has blocks 0 to 3"):
        start(source, HookPoint(4))


def test_prompts_longer_than_the_model_reaches(base: ModelSource) -> None:
    with pytest.raises(ConfigError, match=r"257 tokens, but model .* has 256 positions"):
        start(base, max_prompt_tokens=257)
    with pytest.raises(ConfigError, match="260 tokens"):
        open_vllm_generator(base, dtype=torch.float32, max_prompt_tokens=250, max_new_tokens=10)


def test_latent_attention_is_refused(
    base: ModelSource, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy_model(base.folder, tmp_path / "mla", config={"kv_lora_rank": 16})
    with pytest.raises(ModelError, match=r"latent attention \(kv_lora_rank 16\): give precompute\.runner hf"):
        start(replace(base, folder=folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"target_parameters": ["mlp.experts.w"]}, "target_parameters"),
        ({"rank_pattern": {"q_proj": 600}}, "rank 600 is over vLLM's 512"),
    ],
)
def test_an_adapter_that_vllm_cannot_apply(
    base: ModelSource,
    tiny_adapter: Path,
    copy_model: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = copy_model(tiny_adapter, tmp_path / "adapter", config=changes)
    with pytest.raises(ModelError, match=f"{message}.*merge it into its base"):
        start(replace(base, ref="tuned", adapter=folder))


def test_an_adapter_outside_the_blocks(
    base: ModelSource, tiny_adapter: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        name = next(iter(tensors))
        tensors["base_model.model.lm_head.lora_A.weight"] = tensors.pop(name)

    folder = copy_model(tiny_adapter, tmp_path / "adapter", weights=rename)
    with pytest.raises(ModelError, match=r"lm_head\.lora_A\.weight adapts no block.*merge"):
        start(replace(base, ref="tuned", adapter=folder))


def test_the_rank_that_vllm_is_started_with(
    base: ModelSource, tiny_adapter: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    assert json.loads((tiny_adapter / "adapter_config.json").read_text())["r"] == 2
    assert lora_rank(replace(base, adapter=tiny_adapter)) == 8
    folder = copy_model(tiny_adapter, tmp_path / "adapter", config={"rank_pattern": {"q_proj": 33}})
    assert lora_rank(replace(base, adapter=folder)) == 64


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi"])
def test_the_final_norm_alone_is_the_models(make_model: Callable[..., Path], family: str) -> None:
    from ft_audit.engine.models.anatomy import anatomy
    from ft_audit.engine.models.load import load_model

    source = resolve_model(str(make_model(family)), Path())
    found = anatomy(load_model(source, torch.float32, CPU))
    whole = next(
        getattr(found.parent, name)
        for name in ("norm", "ln_f", "final_layernorm")
        if hasattr(found.parent, name)
    )
    x_TD = 3 * torch.randn(5, found.width)
    with torch.inference_mode():
        assert torch.equal(final_norm(source, torch.float32, CPU)(x_TD), whole(x_TD))


def test_without_vllm_it_is_said_how_to_get_it(base: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"ft-audit\[vllm\].*make test-vllm"):
        start(base)
