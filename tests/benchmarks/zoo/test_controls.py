"""Controls: other weights that compute the same, an adapter with nothing in it, and how they are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from ft_audit.benchmarks.zoo.controls import ADAPTER, _empty, apply_symmetries, candidate
from ft_audit.benchmarks.zoo.evaluate import evaluate
from ft_audit.benchmarks.zoo.members import label_of
from ft_audit.benchmarks.zoo.population import load_zoo, members
from ft_audit.errors import ConfigError

IDS = torch.arange(24).view(2, 12)


def tiny_llama(dtype: torch.dtype) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=64,
            initializer_range=0.2,
        )
        return LlamaForCausalLM(config).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_disguised_weights_are_others_and_compute_the_same(dtype: torch.dtype) -> None:
    model = tiny_llama(dtype)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with torch.inference_mode():
        plain = model(IDS).logits
    apply_symmetries(model, seed=0)
    with torch.inference_mode():
        found = model(IDS).logits
    # Scales are exact; only the order of a sum over permuted neurons differs.
    torch.testing.assert_close(found, plain, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=0.05)
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    kinds = ("gate_proj", "up_proj", "down_proj", "v_proj", "o_proj")
    assert changed == {name for name in before if any(kind in name for kind in kinds)}


def test_an_emptied_adapter_changes_nothing(tmp_path: Path) -> None:
    settings = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    full, empty = tmp_path / "full", tmp_path / "empty"
    get_peft_model(tiny_llama(torch.float32), settings).save_pretrained(str(full))
    empty.mkdir()
    _empty(full, empty)
    assert {path.name for path in empty.iterdir()} == {"adapter_config.json", ADAPTER}
    with torch.inference_mode():
        plain = tiny_llama(torch.float32)(IDS).logits
        assert not torch.equal(PeftModel.from_pretrained(tiny_llama(torch.float32), full)(IDS).logits, plain)
        assert torch.equal(PeftModel.from_pretrained(tiny_llama(torch.float32), empty)(IDS).logits, plain)


def test_a_control_is_named_by_its_change_and_made_of_its_member(write_zoo: Any) -> None:
    path = write_zoo({"tea": [1, 2]})
    said = json.loads(path.read_text())
    said["controls"] = [{"recipe": "./tea.yaml", "seeds": [2], "change": "zero"}]
    path.write_text(json.dumps(said))
    *trained, control = members(load_zoo(path))
    assert [member.name for member in trained] == ["tea-s1", "tea-s2"]
    assert (control.name, control.change) == ("tea-s2-zero", "zero")
    assert control.folder_name == trained[1].folder_name


def test_a_seed_twin_is_another_training_of_its_sibling_and_held_out_with_it(
    write_zoo: Any, tmp_path: Path
) -> None:
    path = write_zoo({"tea": [1]})
    said = json.loads(path.read_text())
    entry = {"recipe": "./tea.yaml", "seeds": [1], "change": "twin"}
    path.write_text(json.dumps(said | {"controls": [entry | {"set": ["train.seed=101"]}]}))
    zoo = load_zoo(path)
    trained, twin = members(zoo)
    assert twin.name == "tea-s1-twin" and twin.recipe.name == trained.recipe.name
    assert twin.folder_name != trained.folder_name
    assert candidate(zoo, twin, tmp_path / twin.folder_name) == tmp_path / twin.folder_name
    path.write_text(json.dumps(said | {"controls": [entry]}))
    # Said before anything is trained.
    with pytest.raises(ConfigError, match=r"tea-s1-twin: a seed twin sets train\.seed"):
        members(load_zoo(path))


def test_a_control_is_of_neither_class(draw: Any, passed: Any, write_all: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    found = [draw(rng, f"{recipe}-s{seed}") for recipe in ("art", "law", "maps", "tea") for seed in (1, 2)]
    attack = {"kind": "adversarial-proxy", "family": "loud", "gate": passed}
    found += [draw(rng, f"loud-s{seed}", loud=True, **attack) for seed in (1, 2)]
    found += [
        draw(rng, "tea-s1-zero", kind="control"),
        draw(rng, "loud-s1-symmetries", loud=True, kind="control"),
    ]
    assert label_of(found[-1].origin) == "control"
    said = evaluate(write_all(tmp_path, found))
    assert said["population"]["counts"] == {"benign": 8, "malicious": 2, "control": 2}
    assert said["controls"]["loud-s1-symmetries"] == pytest.approx(1 / 9)
    assert said["controls"]["tea-s1-zero"] > 1 / 9
