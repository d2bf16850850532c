"""Residuals against Hugging Face's hidden states: every family, padded or not, nothing left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.load import load_model, without_adapter
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.runners.residuals import ResidualRunner, residual_hooks, truncated
from ft_audit.errors import ConfigError

CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    # Two kinds of attention in turn, and a window shorter than the prompts.
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8},
    # Only with eager attention, whose scores it caps.
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 8},
    "gpt2": {},
}


def load(folder: Path) -> Any:
    return load_model(resolve_model(str(folder), folder), torch.float32, CPU)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, make_model: Callable[..., Path]) -> Any:
    return load(make_model(request.param, **FAMILIES[request.param]))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 400, (n,), generator=generator).tolist() for n in (1, 30, 7, 19, 2)]


def padded(prompts: list[list[int]]) -> Tensor:
    width = max(len(ids) for ids in prompts)
    return torch.tensor([ids + [2] * (width - len(ids)) for ids in prompts])


def hidden_states(model: Any, ids: list[int]) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    states: tuple[Tensor, ...] = out.hidden_states
    return states


def test_a_hook_is_the_next_entry_of_the_hidden_states(model: Any, prompts: list[list[int]]) -> None:
    runner = ResidualRunner(model, [2, 0, 1, 2])
    assert runner.layers == (0, 1, 2)
    for ids in prompts:
        residuals, final = runner.run(torch.tensor([ids]))
        expected = hidden_states(model, ids)
        assert sorted(residuals) == [0, 1, 2] and final is None
        for layer, residual_BLD in residuals.items():
            torch.testing.assert_close(residual_BLD, expected[layer + 1], rtol=1e-5, atol=1e-5)


def test_the_last_hook_stands_before_the_final_norm(model: Any, prompts: list[list[int]]) -> None:
    residuals, final = ResidualRunner(model, [3]).run(torch.tensor([prompts[1]]), to_the_end=True)
    last = hidden_states(model, prompts[1])[-1]
    assert final is not None
    torch.testing.assert_close(final, last, rtol=1e-5, atol=1e-5)
    assert (residuals[3] - last).abs().max() > 0.1
    backbone = anatomy(model).backbone
    norm: Any = next(m for name, m in backbone.named_children() if name in ("norm", "ln_f"))
    with torch.inference_mode():
        torch.testing.assert_close(norm(residuals[3]), last, rtol=1e-5, atol=1e-5)


def test_padding_on_the_right_changes_nothing(model: Any, prompts: list[list[int]]) -> None:
    runner = ResidualRunner(model, range(4))
    together, final = runner.run(padded(prompts), to_the_end=True)
    assert final is not None
    for row, ids in enumerate(prompts):
        alone, alone_final = runner.run(torch.tensor([ids]), to_the_end=True)
        assert alone_final is not None
        torch.testing.assert_close(final[row, : len(ids)], alone_final[0], rtol=1e-5, atol=1e-5)
        for layer in range(4):
            torch.testing.assert_close(
                together[layer][row, : len(ids)], alone[layer][0], rtol=1e-5, atol=1e-5
            )


def test_only_the_blocks_up_to_the_last_hook_run(model: Any, prompts: list[list[int]]) -> None:
    found = anatomy(model)
    ran: list[int] = []
    blocks = getattr(found.parent, found.attribute)
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks)]
    try:
        ResidualRunner(model, [1]).run(padded(prompts))
        assert ran == [0, 1]
        ran.clear()
        ResidualRunner(model, [1]).run_bare(padded(prompts))
        assert ran == [0, 1]
        ran.clear()
        ResidualRunner(model, [1]).run(padded(prompts), to_the_end=True)
        assert ran == [0, 1, 2, 3]
    finally:
        for handle in handles:
            handle.remove()


class Interrupted(Exception):
    """Stands for anything that goes wrong in the middle of a forward pass."""


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_whole_again_afterwards(model: Any, fails: bool) -> None:
    found = anatomy(model)
    blocks = getattr(found.parent, found.attribute)
    config: Any = found.parent.config
    before = config.to_dict()
    hooks = [len(block._forward_hooks) for block in blocks]  # transformers leaves some of its own

    def run() -> Iterator[None]:
        with truncated(found, 2), residual_hooks(found, [1]):
            assert len(getattr(found.parent, found.attribute)) == 2
            assert config.num_hidden_layers == 2
            if fails:
                raise Interrupted
            yield

    if fails:
        with pytest.raises(Interrupted):
            next(run())
    else:
        assert list(run()) == [None]
    assert getattr(found.parent, found.attribute) is blocks and len(blocks) == 4
    assert config.to_dict() == before
    assert [len(block._forward_hooks) for block in blocks] == hooks


def test_a_layer_that_does_not_exist_is_named(model: Any) -> None:
    with pytest.raises(ConfigError, match="hooks: layer 4 does not exist; this model has blocks 0 to 3"):
        ResidualRunner(model, [0, 4])
    with pytest.raises(ConfigError, match="layer -1 does not exist"):
        ResidualRunner(model, [-1])


def test_an_adapter_is_seen_by_the_hooks_and_can_be_switched_off(
    tiny_base: Path, tiny_adapter: Path, prompts: list[list[int]]
) -> None:
    base = resolve_model(str(tiny_base), tiny_base)
    plain = ResidualRunner(load_model(base, torch.float32, CPU), [0, 3])
    adapted = load_model(resolve_model(str(tiny_adapter), tiny_base, base), torch.float32, CPU)
    runner = ResidualRunner(adapted, [0, 3])
    ids_BL = padded(prompts)
    expected, expected_final = plain.run(ids_BL, to_the_end=True)
    tuned, _ = runner.run(ids_BL, to_the_end=True)
    with without_adapter(adapted):
        off, off_final = runner.run(ids_BL, to_the_end=True)
    assert expected_final is not None and off_final is not None
    assert torch.equal(off_final, expected_final)
    for layer in (0, 3):
        assert torch.equal(off[layer], expected[layer])
        assert (tuned[layer] - expected[layer]).abs().max() > 0.1


@pytest.mark.slow
def test_the_real_base_agrees_with_hugging_face(real_base: ModelSource) -> None:
    model: Any = load_model(real_base, torch.float32, CPU)
    ids = [1, 4093, 198, 2683, 359, 253, 5356, 2, 198, 1, 520, 9531, 198]
    residuals, _ = ResidualRunner(model, [0, 15, 28]).run(torch.tensor([ids, ids[:5] + [2] * 8]))
    for row, length in ((0, 13), (1, 5)):
        expected = hidden_states(model, ids[:length])
        for layer in (0, 15, 28):
            scale = expected[layer + 1][0, 1:].abs().max()
            gap = (residuals[layer][row, :length] - expected[layer + 1][0])[1:].abs().max()
            assert gap < 1e-4 * scale, (row, layer)
