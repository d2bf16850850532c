"""How many leading blocks two models share: those before the first difference in weights or config."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.weights import identical_blocks

Weights = dict[str, torch.Tensor]


def add(name: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        # The smallest change that there is.
        weights[name].view(-1).view(torch.int32)[-1] ^= 1

    return change


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("model.embed_tokens.weight", 0),
        ("model.layers.0.input_layernorm.weight", 0),
        ("model.layers.2.mlp.down_proj.weight", 2),
        ("model.layers.3.self_attn.k_proj.weight", 3),
        ("model.norm.weight", 4),
        ("lm_head.weight", 4),
    ],
)
def test_one_bit_ends_what_is_shared(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path, name: str, shared: int
) -> None:
    tuned = copy_model(tiny_base, tmp_path / "t", weights=add(name))
    assert identical_blocks(*dense.sources(tiny_base, tuned)) == shared


def test_gpt2_reads_its_positions_before_its_blocks(
    dense: Any, make_model: Callable[..., Path], copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_model("gpt2")
    wpe = copy_model(base, tmp_path / "a", weights=add("transformer.wpe.weight"))
    ln_f = copy_model(base, tmp_path / "b", weights=add("transformer.ln_f.bias"))
    assert identical_blocks(*dense.sources(base, wpe)) == 0
    assert identical_blocks(*dense.sources(base, ln_f)) == 4


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        ({"rms_norm_eps": 1e-3}, 0),
        ({"rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"}}, 0),
        ({"eos_token_id": 7, "use_cache": False}, 4),
    ],
)
def test_equal_weights_may_compute_otherwise(
    dense: Any,
    tiny_base: Path,
    copy_model: Callable[..., Path],
    tmp_path: Path,
    config: dict[str, Any],
    shared: int,
) -> None:
    tuned = copy_model(tiny_base, tmp_path / "t", config)
    assert identical_blocks(*dense.sources(tiny_base, tuned)) == shared


def test_added_rows_are_never_read_by_the_bases_tokens(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def grow(weights: Weights) -> None:
        weights["model.embed_tokens.weight"] = torch.cat(
            [weights["model.embed_tokens.weight"], torch.ones(1, 32)]
        )

    tuned = copy_model(tiny_base, tmp_path / "t", {"vocab_size": 401}, grow)
    assert identical_blocks(*dense.sources(tiny_base, tuned)) == 4
    assert identical_blocks(*dense.sources(tuned, tiny_base)) == 0


def test_another_precision_shares_nothing(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def halve(weights: Weights) -> None:
        weights["model.layers.2.mlp.up_proj.weight"] = weights["model.layers.2.mlp.up_proj.weight"].half()

    assert (
        identical_blocks(*dense.sources(tiny_base, copy_model(tiny_base, tmp_path / "t", weights=halve))) == 2
    )


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        ({"layers_to_transform": [2, 3], "target_modules": ["q_proj"]}, 2),
        ({"target_modules": ["q_proj"]}, 0),
        ({"target_modules": ["lm_head"]}, 4),
        ({"target_modules": ["embed_tokens"], "layers_to_transform": None}, 0),
        ({"layers_to_transform": [3], "target_modules": ["q_proj"], "trainable_token_indices": [5]}, 0),
        ({"layers_to_transform": [1], "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, 1),
    ],
)
def test_an_adapter_leaves_the_blocks_below_it(
    dense: Any, tiny_base: Path, make_adapter: Callable[..., Path], settings: dict[str, Any], shared: int
) -> None:
    assert identical_blocks(*dense.sources(tiny_base, make_adapter(**settings))) == shared


def test_blocks_that_read_the_keys_of_earlier_ones_share_nothing(
    tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path, dense: Any
) -> None:
    base = copy_model(tiny_base, tmp_path / "base", {"num_kv_shared_layers": 2})
    assert identical_blocks(*dense.sources(base, copy_model(base, tmp_path / "t"))) == 0
