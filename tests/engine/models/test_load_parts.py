"""Loading no more than is read: the first blocks, no head, an adapter for them; or in several places."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.load import attach_adapter, load_model, pick_device, pick_device_map
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.tokens.padded import PaddedBatch
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
UP = "model.layers.2.mlp.up_proj.weight"
BATCH = PaddedBatch(
    torch.arange(3, 43).view(2, 20),
    torch.arange(2).repeat_interleave(20),
    torch.arange(20).repeat(2),
    torch.arange(40),
)


def load(folder: Path, base: ModelSource | None = None, **settings: Any) -> Any:
    return load_model(resolve_model(str(folder), folder, base), torch.float32, CPU, **settings)


def bytes_of(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "qwen3", "smollm3"])
def test_what_is_not_read_takes_no_memory(make_model: Callable[..., Path], family: str) -> None:
    folder = make_model(family)
    held = load_file(folder / "model.safetensors")
    part = load(folder, num_layers=2, head=False)
    left_out = re.compile(r"\.[23]\.|^lm_head")
    assert bytes_of(part) == sum(t.numel() * 4 for name, t in held.items() if not left_out.search(name))
    loaded = {name: p for name, p in part.named_parameters() if not p.is_meta}
    assert all(torch.equal(parameter, held[name]) for name, parameter in loaded.items())
    assert anatomy(part).num_layers == 2 and not part.training


def test_nothing_is_printed_about_what_was_left_out(
    tiny_base: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    load(tiny_base, num_layers=2, head=False)
    assert not caplog.records and "UNEXPECTED" not in "".join(capfd.readouterr())


def test_a_tied_head_comes_with_the_embedding(make_model: Callable[..., Path]) -> None:
    part = load(make_model(tie_word_embeddings=True), num_layers=1, head=False)
    assert part.lm_head.weight is part.model.embed_tokens.weight and not part.lm_head.weight.is_meta


def test_more_blocks_than_there_are_is_all_of_them(tiny_base: Path) -> None:
    assert anatomy(load(tiny_base, num_layers=9)).num_layers == 4


def test_what_is_loaded_is_still_checked(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][5, 7] = float("nan")

    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights[UP]

    for number, (change, says) in enumerate(
        [(spoil, "holds NaN"), (drop, r"lack .*layers\.2\.mlp\.up_proj")]
    ):
        folder = copy_model(tiny_base, tmp_path / str(number), weights=change)
        assert anatomy(load(folder, num_layers=2, head=False)).num_layers == 2
        for head in (True, False):
            with pytest.raises(ModelError, match=says):
                load(folder, num_layers=3, head=head)


@pytest.mark.parametrize(
    "name", ["model.layers.7.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
)
def test_weights_that_nothing_would_run_are_refused(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path], name: str
) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = torch.zeros(3)

    folder = copy_model(tiny_base, tmp_path / "m", weights=add)
    for settings in ({}, {"num_layers": 2, "head": False}):
        with pytest.raises(ModelError, match=rf"hold {re.escape(name)} .* has no place for; save the model"):
            load(folder, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
        {"target_modules": ["lm_head", "v_proj"]},
        {"target_modules": ["embed_tokens", "up_proj"]},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_an_adapter_over_the_first_blocks_gives_the_same_bits(
    tiny_base: Path, make_adapter: Callable[..., Path], settings: dict[str, Any]
) -> None:
    base = resolve_model(str(tiny_base), tiny_base)
    adapter = resolve_model(str(make_adapter(**settings)), tiny_base, base)
    hooks = [HookPoint(0), HookPoint(1)]
    whole = load_model(adapter, torch.float32, CPU)
    for part in (
        load_model(adapter, torch.float32, CPU, num_layers=2, head=False),
        attach_adapter(load_model(base, torch.float32, CPU, num_layers=2, head=False), adapter),
    ):
        expected, found = (HfRunner(model, hooks).run(BATCH).hooks for model in (whole, part))
        with without_adapter(part), without_adapter(whole):
            plain, off = (HfRunner(model, hooks).run(BATCH).hooks for model in (whole, part))
        for hook in hooks:
            assert torch.equal(found[hook.name], expected[hook.name])
            assert torch.equal(off[hook.name], plain[hook.name])
        assert (expected["resid_post/1"] - plain["resid_post/1"]).abs().max() > 0.1 or "lm_head" in str(
            settings
        )


def test_an_adapter_for_later_blocks_alone_changes_nothing(
    tiny_base: Path, make_adapter: Callable[..., Path]
) -> None:
    adapter = make_adapter(target_modules=["q_proj"], layers_to_transform=[3])
    base = resolve_model(str(tiny_base), tiny_base)
    part = load(adapter, base, num_layers=2, head=False)
    with without_adapter(part):
        off = HfRunner(part, [HookPoint(1)]).run(BATCH).hooks["resid_post/1"]
    assert torch.equal(HfRunner(part, [HookPoint(1)]).run(BATCH).hooks["resid_post/1"], off)
    assert torch.equal(HfRunner(load(tiny_base), [HookPoint(1)]).run(BATCH).hooks["resid_post/1"], off)


def test_an_adapter_of_a_deeper_base_does_not_fit_the_first_blocks_either(
    tiny_base: Path, make_model: Callable[..., Path], make_adapter: Callable[..., Path]
) -> None:
    deeper = make_adapter(make_model(num_hidden_layers=6))
    with pytest.raises(ModelError, match=r"layers\.4\..* and \d+ more are in its file, but no part of this"):
        load(deeper, resolve_model(str(tiny_base), tiny_base), num_layers=2, head=False)


def test_a_weight_that_lies_on_disk_is_checked_too(
    tiny_base: Path, tmp_path: Path, copy_model: Callable[..., Path]
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[UP][5, 7] = float("inf")

    folder = copy_model(tiny_base, tmp_path / "m", weights=spoil)
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{n}": "disk" if n == 2 else "cpu" for n in range(4)}
    with pytest.raises(ModelError, match=f"parameter {UP} holds NaN or infinite values"):
        load(folder, device_map=places)


def test_an_adapter_over_a_base_that_does_not_fit_is_refused(tiny_base: Path, tiny_adapter: Path) -> None:
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{n}": "disk" for n in range(4)}
    with pytest.raises(ModelError, match=r"does not fit the accelerators.* merge it into its base"):
        load(tiny_adapter, resolve_model(str(tiny_base), tiny_base), device_map=places)


def test_a_sharded_model_is_an_ordinary_one_where_there_is_one_device(tiny_base: Path) -> None:
    assert pick_device_map("cpu") is None and pick_device_map("auto") is None
    assert pick_device("sharded") == pick_device("auto")
    model = load(tiny_base, device_map=pick_device_map("sharded"))
    found = HfRunner(model, [HookPoint(2)]).run(BATCH).hooks["resid_post/2"].cpu()
    expected = HfRunner(load(tiny_base), [HookPoint(2)]).run(BATCH).hooks["resid_post/2"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
