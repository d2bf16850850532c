"""A malicious candidate's settings: configs that ask for more than its weights, odd generation settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.runners.generate import generate_ids
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
NAME = "model.embed_tokens.weight"
Copy = Callable[..., Path]
Refusal = Callable[[Path], str]

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"vocab_size": 10**12},
            f"by its config.json {NAME} has the shape (1000000000000, 32), but in its safetensors it has the "
            "shape (400, 32)",
        ),
        ({"vocab_size": 10**30}, "cannot be built from its config.json"),
        ({"vocab_size": -1}, "cannot be built from its config.json"),
        (
            {"hidden_size": 10**6},
            "has the shape (400, 1000000), but in its safetensors it has the shape (400, 32)",
        ),
        (
            {"intermediate_size": 10**12},
            "mlp.gate_proj.weight has the shape (1000000000000, 32), but in its safetensors it has the shape",
        ),
        (
            {"num_hidden_layers": 10**9},
            "config.json asks for num_hidden_layers 1000000000, but the weights are 39",
        ),
        ({"num_labels": 10**9}, "config.json asks for num_labels 1000000000"),
        ({"text_config": {"num_experts": 10**9}}, "config.json asks for num_experts 1000000000"),
        ({"num_attention_heads": 0}, "cannot be built from its config.json: ZeroDivisionError"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "x"}}, "cannot be built from its config.json"),
        ({"quantization_config": 5}, "cannot be built from its config.json: AttributeError"),
        ({"text_config": 5}, "cannot be built from its config.json: AttributeError"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_config_that_asks_for_more_than_the_weights_is_refused(
    tiny_base: Path, tmp_path: Path, copy_model: Copy, refusal: Refusal, config: dict[str, Any], says: str
) -> None:
    assert says in refusal(copy_model(tiny_base, tmp_path / "m", config))


def test_a_missing_weight_is_not_made_at_the_size_that_the_config_asks_for(
    tiny_base: Path, tmp_path: Path, copy_model: Copy, refusal: Refusal
) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[NAME], weights["lm_head.weight"]

    folder = copy_model(tiny_base, tmp_path / "m", {"vocab_size": 10**8}, drop)
    assert "has the shape (100000000, 32), but in its safetensors it is not there" in refusal(folder)


def test_tables_of_positions_are_no_bomb_either(make_model: Copy, tmp_path: Path, copy_model: Copy) -> None:
    gpt2 = make_model("gpt2")
    base = resolve_model(str(gpt2), gpt2)
    folder = copy_model(gpt2, tmp_path / "m", {"n_positions": 10**7, "max_position_embeddings": 10**7})
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve_model(str(folder), folder, base)


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": "two"},
        {"eos_token_id": [[1e300]]},
        {"max_new_tokens": -5, "num_beams": 10**9},
        {"temperature": "hot", "do_sample": "yes"},
        {"bad_words_ids": [[]], "pad_token_id": -(10**30)},
    ],
)
def test_odd_generation_settings_are_refused_or_change_nothing(
    tiny_base: Path, trusted: ModelSource, tmp_path: Path, copy_model: Copy, settings: dict[str, Any]
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m")
    source = resolve_model(str(folder), tmp_path, trusted)
    tokenizer = load_tokenizer(source)
    plain = generate_ids(load_model(source, torch.float32, CPU), tokenizer, [[5, 6, 7]], 4)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    try:
        model = load_model(resolve_model(str(folder), tmp_path, trusted), torch.float32, CPU)
    except ModelError as refused:
        said = str(refused)
    else:
        said = "generation_config.json" if generate_ids(model, tokenizer, [[5, 6, 7]], 4) == plain else ""
    assert "generation_config.json" in said
