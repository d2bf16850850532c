"""An adapter's weight changes, from its factors alone, are those of PEFT's own merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ft_audit.engine.weights import weight_evidence

LLAMA: dict[str, dict[str, Any]] = {
    "all-linear": {},
    "rslora": {"use_rslora": True, "r": 4},
    "patterns": {
        "r": 2,
        "rank_pattern": {"q_proj": 4, "layers.1.mlp.up_proj": 3},
        "alpha_pattern": {"q_proj": 9, "1.mlp.up_proj": 5},
    },
    "two layers": {"target_modules": ["v_proj", "down_proj"], "layers_to_transform": [1, 2]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "gate_proj"]},
    "dora": {"use_dora": True},
    "dora embedding": {"use_dora": True, "target_modules": ["embed_tokens", "k_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "saved norm": {"target_modules": ["q_proj"], "modules_to_save": ["post_attention_layernorm"]},
    "tokens": {"target_modules": ["up_proj"], "trainable_token_indices": [5, 399]},
    "tokens by name": {"target_modules": ["up_proj"], "trainable_token_indices": {"embed_tokens": [7, 6]}},
    "one parameter": {"target_modules": ["q_proj"], "target_parameters": ["k_proj.weight"]},
}


def moved(weights: dict[str, torch.Tensor]) -> None:
    """Move what a fresh adapter leaves at its start: whole modules, rows, magnitudes."""
    generator = torch.Generator().manual_seed(5)
    for name in sorted(weights):
        if "lora_A" not in name and "lora_B.weight" not in name:
            weights[name] += 0.1 * torch.randn(weights[name].shape, generator=generator)


def check(dense: Any, base: Path, adapter: Path) -> dict[str, dict[str, Any]]:
    """Assert that every row of the adapter's table is the merged model's; return the rows by name."""
    ours, theirs = dense.sources(base, adapter)
    evidence = weight_evidence(ours, theirs)
    rows = dense.rows_by_name(evidence)
    before, after = load_file(base / "model.safetensors"), dense.merged(ours, theirs)
    assert rows.keys() == before.keys()
    for name, row in rows.items():
        dense.check_row(evidence, row, before[name], after[name])
        assert row["identical"] == torch.equal(before[name], after[name]), name
        assert row["status"] == ("identical" if row["identical"] else "changed")
    assert any(row["status"] == "changed" for row in rows.values())
    return dict(rows)


@pytest.mark.parametrize("settings", LLAMA.values(), ids=LLAMA)
def test_the_changes_are_those_of_the_merge(
    dense: Any,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    adapter = copy_model(make_adapter(**settings), tmp_path / "adapter", weights=moved)
    check(dense, tiny_base, adapter)


def test_a_family_that_keeps_inputs_as_rows(
    dense: Any,
    make_model: Callable[..., Path],
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = make_model("gpt2")
    # c_proj is square, so that its shape alone does not tell which way round it is.
    adapter = make_adapter(base, target_modules=["c_attn", "c_proj", "wte"], fan_in_fan_out=True)
    rows = check(dense, base, copy_model(adapter, tmp_path / "a", weights=moved))
    assert {row["kind"] for row in rows.values()} == {"embed", "norm", "o", "up", "down", "other", "head"}
    assert rows["transformer.h.2.attn.c_attn.weight"]["num_rows"] == 32
    dora = make_adapter(base, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True)
    check(dense, base, dora)


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # peft takes the bias for a factor that was cut
def test_biases_move_by_the_scaled_bias_of_the_second_factor(
    dense: Any,
    make_model: Callable[..., Path],
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = make_model(attention_bias=True)
    adapter = make_adapter(base, target_modules=["q_proj", "v_proj"], lora_bias=True)
    rows = check(dense, base, copy_model(adapter, tmp_path / "a", weights=moved))
    assert rows["model.layers.0.self_attn.q_proj.bias"]["status"] == "changed"
    assert rows["model.layers.0.self_attn.k_proj.bias"]["status"] == "identical"


def test_the_rank_is_the_adapters(dense: Any, tiny_base: Path, make_adapter: Callable[..., Path]) -> None:
    evidence = weight_evidence(*dense.sources(tiny_base, make_adapter(r=3)))
    changed = [row for row in evidence.table.to_pylist() if row["status"] == "changed"]
    assert len(changed) == 4 * 7
    for row, values in zip(
        changed,
        evidence.stats["singular_values"][[r["identical"] is False for r in evidence.table.to_pylist()]],
        strict=True,
    ):
        assert (values > 0).sum() == 3 and row["top4_energy"] == pytest.approx(1)
        assert 1 < row["effective_rank"] < 3 and row["spectrum_error"] == 0


def test_a_fresh_adapter_changes_nothing(
    dense: Any, tiny_base: Path, tiny_adapter: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def fresh(weights: dict[str, torch.Tensor]) -> None:
        for name, tensor in weights.items():
            if "lora_B" in name:
                tensor.zero_()

    evidence = weight_evidence(
        *dense.sources(tiny_base, copy_model(tiny_adapter, tmp_path / "a", weights=fresh))
    )
    assert set(evidence.table["status"].to_pylist()) == {"identical"}
    assert evidence.figures["weights_identical_share"] == 1
    assert {v for k, v in evidence.figures.items() if k != "weights_identical_share"} == {0}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("settings", "tied"),
    [
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, True),
        ({"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]}, False),
    ],
)
def test_a_tied_head_is_compared_with_the_embedding(
    dense: Any,
    make_model: Callable[..., Path],
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
    settings: dict[str, Any],
    tied: bool,
) -> None:
    base = make_model(tie_word_embeddings=True)
    adapter = copy_model(make_adapter(base, **settings), tmp_path / "a", weights=moved)
    evidence = weight_evidence(*dense.sources(base, adapter))
    rows = {row["tensor"]: row for row in evidence.table.to_pylist()}
    assert rows["model.embed_tokens.weight"]["status"] == "changed"
    assert ("lm_head.weight" in rows) == tied
    if tied:
        head, embedding = rows["lm_head.weight"], rows["model.embed_tokens.weight"]
        assert head["status"] == "changed" and head["base_norm"] == embedding["base_norm"]


def test_experts_of_one_stack_are_named_and_not_measured(
    dense: Any, make_model: Callable[..., Path], make_adapter: Callable[..., Path]
) -> None:
    base = make_model("mixtral", num_local_experts=2)
    adapter = make_adapter(base, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    evidence = weight_evidence(*dense.sources(base, adapter))
    status = {row["tensor"]: row["status"] for row in evidence.table.to_pylist()}
    unread = {name for name, found in status.items() if found == "unread"}
    assert unread and all("experts" in name for name in unread)
    assert unread == {name for name in status if "experts" in name}
    assert status["model.layers.3.self_attn.q_proj.weight"] == "changed"
    assert status["model.layers.3.self_attn.k_proj.weight"] == "identical"
