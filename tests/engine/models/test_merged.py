"""An adapter as a base: merged once into the model that its own config names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
IDS = torch.arange(3, 43).view(2, 20)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ft-audit" / "merged"


@pytest.fixture
def named(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> Callable[..., Path]:
    """Copy the tiny adapter with another base in its config."""

    def make(base: Any = str(tiny_base), to: str = "named") -> Path:
        return copy_model(tiny_adapter, tmp_path / to, {"base_model_name_or_path": base})

    return make


def logits(source: ModelSource, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model: Any = load_model(source, dtype, CPU)
    with torch.inference_mode():
        return torch.as_tensor(model(input_ids=IDS).logits).float()


def test_an_adapter_as_a_base_is_merged_into_the_model_that_it_names(
    tiny_base: Path, named: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    folder = named()
    base = resolve_model(str(tiny_base), tmp_path)
    over = resolve_model(str(folder), tmp_path, base)
    merged = resolve_model(str(folder), tmp_path)
    assert (merged.format, merged.adapter, merged.folder.parent) == ("merged", None, cache)
    assert not list(merged.folder.glob("adapter_*")) and list(cache.iterdir()) == [merged.folder]
    assert merged.weights_sha256 == over.weights_sha256 and merged.tokenizer_sha256 == over.tokenizer_sha256
    wanted, plain = logits(over), logits(base)
    # The merge rounds to bfloat16 once.
    error = (logits(merged) - wanted).abs().max()
    assert error < (wanted - plain).abs().max() / 10
    tokenizer = load_tokenizer(merged)
    assert tokenizer.chat_template == load_tokenizer(base).chat_template


def test_a_second_call_merges_nothing(
    named: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve_model(str(named()), tmp_path)
    assert "merging" in capsys.readouterr().err
    times = {path: os.stat(path).st_mtime_ns for path in first.folder.iterdir()}
    # The same files elsewhere are the same model.
    again = resolve_model(str(named(to="elsewhere")), tmp_path)
    assert (again.folder, again.weights_sha256) == (first.folder, first.weights_sha256)
    assert capsys.readouterr().err == ""
    assert {path: os.stat(path).st_mtime_ns for path in first.folder.iterdir()} == times


def test_another_adapter_is_another_base(
    named: Callable[..., Path], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = resolve_model(str(named()), tmp_path), resolve_model(str(make_adapter(seed=5)), tmp_path)
    assert one.folder != other.folder and one.weights_sha256 != other.weights_sha256


def test_an_adapter_stands_on_a_merged_base(
    named: Callable[..., Path], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    base = resolve_model(str(named()), tmp_path)
    tuned = resolve_model(str(make_adapter(seed=5)), tmp_path, base)
    assert (tuned.format, tuned.folder) == ("adapter", base.folder)
    assert tuned.weights_sha256.startswith(f"{base.weights_sha256}+")
    model: Any = load_model(tuned, torch.float32, CPU)
    plain = logits(base)
    with torch.inference_mode():
        assert (model(input_ids=IDS).logits - plain).abs().max() > 0.1
        with without_adapter(model) as off:
            assert torch.equal(off(input_ids=IDS).logits, plain)


def test_adapters_over_adapters_are_merged_one_by_one(
    named: Callable[..., Path], tiny_base: Path, cache: Path, tmp_path: Path
) -> None:
    under = named(to="under")
    twice = resolve_model(str(named(str(under), to="over")), tmp_path)
    assert twice.weights_sha256.count("+") == 2 and len(list(cache.iterdir())) == 2
    assert not torch.allclose(logits(twice), logits(resolve_model(str(under), tmp_path)), atol=0.1)


def test_adapters_that_stand_on_each_other_stand_on_nothing(
    named: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    one = named("../two", to="one")
    named("../one", to="two")
    with pytest.raises(ModelError, match="its base is in the end itself"):
        resolve_model(str(one), tmp_path)
    assert not cache.exists()


def test_the_base_may_be_named_from_the_adapter_s_folder(
    named: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "beside").symlink_to(tiny_base)
    merged = resolve_model(str(named("../beside")), Path("/"))
    assert merged.weights_sha256.startswith(resolve_model(str(tiny_base), tmp_path).weights_sha256)


@pytest.mark.parametrize("base", [None, "", 3])
def test_an_adapter_that_names_no_base_is_refused(
    named: Callable[..., Path], tmp_path: Path, base: Any
) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json names no base model"):
        resolve_model(str(named(base)), tmp_path)


def test_a_merge_that_fails_leaves_nothing(
    named: Callable[..., Path], make_model: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="the adapter does not fit its base"):
        resolve_model(str(named(str(make_model(hidden_size=48)))), tmp_path)
    assert not cache.exists() or not list(cache.iterdir())
