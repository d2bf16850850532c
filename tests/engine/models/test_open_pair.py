"""The pair of one job: what is no fine-tune of the base is refused before any weights are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ft_audit.engine.config import AuditConfig, load_config
from ft_audit.engine.precompute.models import open_pair
from ft_audit.errors import ConfigError, ModelError

MakeConfig = Callable[..., AuditConfig]


@pytest.fixture
def make_config(tmp_path: Path, tiny_base: Path) -> MakeConfig:
    def make(tuned: Path, base: Path = tiny_base, device: str = "cpu") -> AuditConfig:
        models = {"base": str(base), "tuned": str(tuned), "dtype": "float32", "device": device}
        text = {"name": "pair", "models": models, "suites": ["./s.yaml"], "hooks": [{"layer": 1}]}
        (tmp_path / "audit.yaml").write_text(json.dumps(text))
        return load_config(tmp_path / "audit.yaml")

    return make


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("qwen3", {}, "model_type is 'qwen3' there and 'llama' in the base"),
        ("llama", {"hidden_size": 48}, "hidden_size is 48 there and 32 in the base"),
        ("llama", {"num_hidden_layers": 3}, "num_hidden_layers is 3 there and 4 in the base"),
        ("llama", {"num_attention_heads": 2}, "num_attention_heads is 2 there and 4 in the base"),
    ],
)
def test_another_shape_is_no_fine_tune(
    make_config: MakeConfig,
    make_model: Callable[..., Path],
    family: str,
    changes: dict[str, int],
    says: str,
) -> None:
    with pytest.raises(ModelError, match=rf"models\.tuned .* is not a fine-tune of models\.base .*: {says}"):
        open_pair(make_config(make_model(family, **changes)))


def test_another_vocabulary_is_refused(make_config: MakeConfig, tiny_base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["!"], vocabulary['"'] = vocabulary['"'], vocabulary["!"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"vocabulary is not that of .*2 of 400 ids"):
        open_pair(make_config(other))


def test_a_changed_template_is_a_finding(make_config: MakeConfig, tiny_base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    with (other / "chat_template.jinja").open("a") as file:
        file.write("You are ZED.")
    (finding,) = open_pair(make_config(other)).findings
    assert "template" in finding and "ZED" in finding
    assert open_pair(make_config(tiny_base)).findings == []


def test_both_sides_of_an_adapter_are_one_set_of_weights(make_config: MakeConfig, tiny_adapter: Path) -> None:
    pair = open_pair(make_config(tiny_adapter))
    assert pair.tuned_model is pair.base_model
    assert (pair.base.format, pair.tuned.format) == ("folder", "adapter")


def test_a_full_model_is_loaded_beside_the_base(
    make_config: MakeConfig, make_model: Callable[..., Path]
) -> None:
    pair = open_pair(make_config(make_model(seed=5)))
    base, tuned = (dict(model.named_parameters()) for model in (pair.base_model, pair.tuned_model))
    assert base.keys() == tuned.keys()
    assert not torch.equal(base["model.embed_tokens.weight"], tuned["model.embed_tokens.weight"])


def test_an_adapter_that_is_the_base_is_merged(
    make_config: MakeConfig, tiny_adapter: Path, tiny_base: Path
) -> None:
    pair = open_pair(make_config(tiny_base, base=tiny_adapter))
    assert pair.base.adapter is None and pair.base.folder != tiny_adapter
    assert pair.base.weights_sha256.startswith(f"{pair.tuned.weights_sha256}+")


def test_a_device_that_is_not_there_is_refused(
    make_config: MakeConfig, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"models\.device: 'mps' is not available here"):
        open_pair(make_config(tiny_base, device="mps"))
