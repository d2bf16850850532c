"""Files that hold no honest weights are refused by the name of what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.weights import weight_evidence
from ft_audit.errors import ModelError

UP = "model.layers.1.mlp.up_proj.weight"
A = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
Weights = dict[str, torch.Tensor]


def put(name: str, value: Any) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        if callable(value):
            weights[name] = value(weights[name])
        else:
            weights[name].view(-1)[3] = value

    return change


CHECKPOINTS: dict[str, tuple[Callable[[Weights], None], str]] = {
    "nan": (put(UP, float("nan")), rf"{UP} holds NaN or infinite values"),
    "inf": (put("model.norm.weight", float("-inf")), "model.norm.weight holds NaN"),
    "no rows": (put(UP, lambda w: w[:0]), rf"{UP} has the shape \(0, 32\)"),
    "other rows": (
        put(UP, lambda w: w[:-1].clone()),
        rf"{UP} has the shape \(63, 32\) and the base's \(64, 32\)",
    ),
    "other columns": (put("model.embed_tokens.weight", lambda w: w[:, 1:].clone()), r"\(400, 31\)"),
    "flat": (put(UP, lambda w: w.flatten()), rf"{UP} has the shape \(1, 2048\)"),
    "int8": (put(UP, lambda w: w.to(torch.int8)), rf"{UP} is F32 in the base and I8 .* quantised"),
    "float8": (put(UP, lambda w: w.to(torch.float8_e4m3fn)), "F8_E4M3 .* quantised"),
}


@pytest.mark.parametrize(("change", "says"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_is_none(
    dense: Any,
    tiny_base: Path,
    copy_model: Callable[..., Path],
    tmp_path: Path,
    change: Callable[[Weights], None],
    says: str,
) -> None:
    tuned = copy_model(tiny_base, tmp_path / "tuned", weights=change)
    with pytest.raises(ModelError, match=says):
        weight_evidence(*dense.sources(tiny_base, tuned))
    if "shape" not in says:
        with pytest.raises(ModelError):
            weight_evidence(*dense.sources(tuned, tiny_base))


def test_added_rows_are_checked_too(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    grow = put("lm_head.weight", lambda w: torch.cat([w, torch.full((1, 32), float("nan"))]))
    with pytest.raises(ModelError, match=r"lm_head\.weight holds NaN"):
        weight_evidence(*dense.sources(tiny_base, copy_model(tiny_base, tmp_path / "t", weights=grow)))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{", "index.json cannot be read"),
        ("[]", "index.json cannot be read"),
        (
            json.dumps({"weight_map": {UP: "model-7.safetensors"}}),
            "names model-7.safetensors, which is not there",
        ),
        (
            json.dumps({"weight_map": {UP: "../../base.safetensors"}}),
            "names base.safetensors, which is not there",
        ),
    ],
)
def test_an_index_that_leads_nowhere(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path, index: str, says: str
) -> None:
    tuned = copy_model(tiny_base, tmp_path / "tuned")
    (tuned / "model.safetensors").rename(tuned / "model-0.safetensors")
    (tuned / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=says):
        weight_evidence(*dense.sources(tiny_base, tuned))


def test_a_cut_file_and_a_tensor_held_twice(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    cut = copy_model(tiny_base, tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        weight_evidence(*dense.sources(tiny_base, cut))
    twice = copy_model(tiny_base, tmp_path / "twice")
    (twice / "one.safetensors").write_bytes(data)
    (twice / "model.safetensors").rename(twice / "two.safetensors")
    with pytest.raises(ModelError, match=r"two\.safetensors holds lm_head\.weight a second time"):
        weight_evidence(*dense.sources(tiny_base, twice))


def drop(weights: Weights) -> None:
    del weights[A]


ADAPTERS: dict[str, tuple[Callable[[Weights], None], str]] = {
    "nan": (put(A, float("nan")), rf"{A} holds NaN or infinite values"),
    "half": (drop, r"only one half of model\.layers\.0\.mlp\.down_proj"),
    "ranks": (put(A, lambda w: w[:1].clone()), "do not make a product"),
    "columns": (
        put(A, lambda w: w[:, 1:].clone()),
        r"a matrix of the shape \(32, 63\), but the base's is \(32, 64\)",
    ),
    "empty": (put(A, lambda w: w[:0]), "and so no element"),
    "stranger": (lambda w: w.update({"model.norm.weight": torch.ones(32)}), "no part of a LoRA"),
    "variant": (lambda w: w.update({A.replace("lora_A", "lora_E"): torch.ones(2)}), "no part of a LoRA"),
}


@pytest.mark.parametrize(("change", "says"), ADAPTERS.values(), ids=ADAPTERS)
def test_an_adapter_that_is_none(
    dense: Any,
    tiny_base: Path,
    tiny_adapter: Path,
    copy_model: Callable[..., Path],
    tmp_path: Path,
    change: Callable[[Weights], None],
    says: str,
) -> None:
    adapter = copy_model(tiny_adapter, tmp_path / "a", weights=change)
    with pytest.raises(ModelError, match=says):
        weight_evidence(*dense.sources(tiny_base, adapter))


@pytest.mark.parametrize("tokens", [[5], [5, 400], [-1, 5]])
def test_token_rows_that_the_base_lacks(
    dense: Any,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
    tokens: list[int],
) -> None:
    adapter = make_adapter(target_modules=["up_proj"], trainable_token_indices=[5, 6])
    spoilt = copy_model(adapter, tmp_path / "a", {"trainable_token_indices": tokens})
    with pytest.raises(ModelError, match="trainable_token_indices names"):
        weight_evidence(*dense.sources(tiny_base, spoilt))


def test_an_adapter_that_is_no_plain_lora(
    dense: Any, tiny_base: Path, tiny_adapter: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    pissa = copy_model(tiny_adapter, tmp_path / "a", {"init_lora_weights": "pissa"})
    with pytest.raises(ModelError, match="'pissa' changes the base's own weights"):
        weight_evidence(*dense.sources(tiny_base, pissa))


def test_buffers_that_stay_are_no_weights(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def mask(weights: Weights) -> None:
        weights["model.layers.0.self_attn.mask"] = torch.ones(4, 4, dtype=torch.bool)

    base = copy_model(tiny_base, tmp_path / "base", weights=mask)
    same = weight_evidence(*dense.sources(base, copy_model(base, tmp_path / "same")))
    row = dense.rows_by_name(same)["model.layers.0.self_attn.mask"]
    assert (row["status"], row["base_dtype"]) == ("identical", "BOOL") and row["base_norm"] != row[
        "base_norm"
    ]
    flip = put("model.layers.0.self_attn.mask", False)
    with pytest.raises(ModelError, match="mask is BOOL in the base and BOOL in the fine-tune"):
        weight_evidence(*dense.sources(base, copy_model(base, tmp_path / "other", weights=flip)))
