"""References to models: what each form gives, what is refused by name, and hashes that know no place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ft_audit.engine.models.reference import resolve_model
from ft_audit.errors import ConfigError, ModelError


def test_a_folder_is_taken_as_it_is(tiny_base: Path) -> None:
    source = resolve_model("./model", tiny_base.parent)
    assert (source.format, source.folder, source.adapter) == ("folder", tiny_base, None)
    assert source.config["hidden_size"] == 32


def test_hashes_do_not_depend_on_the_place(tiny_base: Path, tmp_path: Path) -> None:
    first = resolve_model("./model", tiny_base.parent)
    moved = tmp_path / "elsewhere" / "by another name"
    shutil.copytree(tiny_base, moved)
    (moved / "README.md").write_text("not part of the model")
    second = resolve_model(str(moved), Path("/"))
    assert second.weights_sha256 == first.weights_sha256
    assert second.tokenizer_sha256 == first.tokenizer_sha256
    assert len(first.weights_sha256) == 64


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model.safetensors", ("weights",)),
        ("config.json", ("weights",)),
        ("tokenizer.json", ("tokenizer",)),
        ("chat_template.jinja", ("tokenizer",)),
        ("added_tokens.json", ("tokenizer",)),
        ("additional_chat_templates/tool_use.jinja", ("tokenizer",)),
    ],
)
def test_one_byte_more_is_another_model(
    tiny_base: Path, tmp_path: Path, name: str, changes: tuple[str, ...]
) -> None:
    first = resolve_model("./model", tiny_base.parent)
    shutil.copytree(tiny_base, tmp_path / "m")
    (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
    with (tmp_path / "m" / name).open("ab") as file:
        file.write(b"\n")
    second = resolve_model("./m", tmp_path)
    assert (second.weights_sha256 != first.weights_sha256) is ("weights" in changes)
    assert (second.tokenizer_sha256 != first.tokenizer_sha256) is ("tokenizer" in changes)


def test_a_template_that_moved_is_another_tokenizer(tiny_base: Path, tmp_path: Path) -> None:
    for name, place in (
        ("one", "chat_template.jinja"),
        ("other", "additional_chat_templates/chat_template.jinja"),
    ):
        shutil.copytree(tiny_base, tmp_path / name, ignore=shutil.ignore_patterns("*.jinja"))
        (tmp_path / name / place).parent.mkdir(exist_ok=True)
        (tmp_path / name / place).write_text("{{ messages }}")
    one, other = (resolve_model(f"./{name}", tmp_path) for name in ("one", "other"))
    assert one.tokenizer_sha256 != other.tokenizer_sha256


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_by_name(tiny_base: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_base, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({}, tmp_path / "m" / name)
    with pytest.raises(ModelError, match=rf"{name}, which is a pickle and may run code; save it with safe"):
        resolve_model("./m", tmp_path)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json; give the folder that holds it"):
        resolve_model(str(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no weights; save it with safe_serialization"):
        resolve_model(str(tmp_path), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_configuration_is_refused(tiny_base: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(tiny_base, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json is no JSON object; save the model again"):
        resolve_model("./m", tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope"):
        resolve_model("./nope", tmp_path)


@pytest.mark.parametrize("ref", ["someone/never-published", "never-published", "a/b/c", "a--b/c"])
def test_a_hub_id_without_the_hub_names_the_fix(ref: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give a local folder, a GGUF file or package:NAME/FILE") as said:
        resolve_model(ref, tmp_path)
    assert repr(ref) in str(said.value)


def test_an_adapter_stands_on_its_base(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    base = resolve_model(str(tiny_base), tmp_path)
    tuned = resolve_model(str(tiny_adapter), tmp_path, base)
    assert (tuned.format, tuned.folder, tuned.adapter) == ("adapter", tiny_base, tiny_adapter)
    assert tuned.weights_sha256.startswith(base.weights_sha256 + "+")
    assert tuned.tokenizer_sha256 == base.tokenizer_sha256
    shutil.copytree(tiny_adapter, tmp_path / "moved")
    assert resolve_model("./moved", tmp_path, base).weights_sha256 == tuned.weights_sha256
    shutil.copy(tiny_base / "tokenizer.json", tmp_path / "moved")
    assert resolve_model("./moved", tmp_path, base).tokenizer_sha256 != base.tokenizer_sha256


def test_an_adapter_that_is_a_pickle_is_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    folder = copy_model(tiny_adapter, tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors \(pickles are refused\)"):
        resolve_model(str(folder), tmp_path, resolve_model(str(tiny_base), tmp_path))


def test_only_safetensors_and_texts_are_asked_from_the_hub(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub cannot be reached here; what is asked of it can be seen."""
    asked = {}

    def snapshot(repo: str, allow_patterns: list[str]) -> str:
        asked[repo] = allow_patterns
        return str(tiny_base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = resolve_model("someone/model", tmp_path)
    assert source.format == "hub" and json.loads((source.folder / "config.json").read_text())
    assert not [
        pattern for pattern in asked["someone/model"] if pattern.endswith((".bin", ".pt", ".py", "*"))
    ]
