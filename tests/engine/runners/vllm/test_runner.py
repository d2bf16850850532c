"""The real vLLM under the contract of every runner, beside Hugging Face and PEFT in float32.

Shapes: T real tokens in prompt order, D width of the residual stream.
"""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.runners.vllm import open_vllm_runner
from ft_audit.errors import ConfigError, ModelError

contract = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "contract.py")))
CPU = torch.device("cpu")
# vLLM's attention on a processor takes no narrower heads.
WIDE = {"hidden_size": 128, "head_dim": 32}
SPECIAL = range(17)  # SmolLM2's, <|im_start|> among them
pytestmark = pytest.mark.vllm


def ordinary(lengths: Sequence[int], seed: int, vocabulary: int = 5000) -> list[list[int]]:
    """Prompts of ordinary tokens behind SmolLM2's first special one."""
    generator = torch.Generator().manual_seed(seed)
    return [[0, *torch.randint(17, vocabulary, (n - 1,), generator=generator).tolist()] for n in lengths]


def by_hugging_face(
    runner: HfRunner, prompts: Sequence[Sequence[int]], *, final: bool = False
) -> dict[str, Tensor]:
    """What `HfRunner` gives for all the prompts, read in batches of similar length."""
    order = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))
    rows: list[dict[str, Tensor]] = [{} for _ in prompts]
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        forward = runner.run(contract.batch_of([prompts[p] for p in chosen]), final=final)
        parts = {**forward.hooks, **({"final": forward.final_TD} if final else {})}
        for name, x_TD in parts.items():
            assert x_TD is not None
            for p, own_TD in zip(chosen, x_TD.split([len(prompts[p]) for p in chosen]), strict=True):
                rows[p][name] = own_TD
    return {name: torch.cat([own[name] for own in rows]) for name in rows[0]}


def check_close(found_TD: Tensor, expected_TD: Tensor, what: str) -> None:
    """As the contract does, rows of massive activations left out: they would hide all others."""
    norm_T = expected_TD.norm(dim=1)
    keep_T = norm_T < 10 * norm_T.median()
    assert float(keep_T.float().mean()) > 0.9
    contract.assert_close(found_TD[keep_T], expected_TD[keep_T], what)


@pytest.fixture
def case(candidate_runner: Any, reference: Any) -> Any:
    return contract.Case(candidate_runner.base().at, reference, SPECIAL)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case: Any, check: Callable[[Any], None]) -> None:
    check(case)


def test_every_hook_of_many_ragged_prompts_in_pieces(candidate_runner: Any, reference: Any) -> None:
    # 300 tokens in steps of 64, of which other prompts take their share: long prompts lie in many pieces.
    assert candidate_runner.engine.config["max_num_batched_tokens"] == 64
    assert not candidate_runner.engine.config["prefix_caching"]
    lengths = [1 + (37 * i) % 20 for i in range(204)]
    lengths[7], lengths[100], lengths[203] = 300, 129, 65
    prompts = ordinary(lengths, seed=1)
    batch = contract.batch_of(prompts)
    found = candidate_runner.base().run(batch, final=True)
    assert found.final_TD is not None
    everything = {**found.hooks, "final": found.final_TD}
    expected = by_hugging_face(HfRunner(reference, candidate_runner.hooks), prompts, final=True)
    counted_T = batch.position_T > 0
    assert everything.keys() == expected.keys()
    for name, x_TD in everything.items():
        check_close(x_TD[counted_T], expected[name][counted_T], name)


def test_shared_beginnings(candidate_runner: Any, reference: Any) -> None:
    # With cached beginnings, states of the shared tokens were once missing or another prompt's.
    start, *ends = ordinary([90, 1, 12, 40, 2], seed=2)
    prompts = [start, *(start + end[1:] for end in ends), start[:33], start]
    batch = contract.batch_of(prompts)
    hooks = [HookPoint(0), HookPoint(14)]
    runner = candidate_runner.base().at(hooks)
    first, second = runner.run(batch), runner.run(batch)
    expected = by_hugging_face(HfRunner(reference, hooks), prompts)
    counted_T = batch.position_T > 0
    for hook in hooks:
        check_close(first.hooks[hook.name][counted_T], expected[hook.name][counted_T], hook.name)
        assert torch.equal(first.hooks[hook.name], second.hooks[hook.name])


def test_an_adapter_and_its_base_in_one_engine(
    candidate_runner: Any, reference_candidate: Any, reference: Any
) -> None:
    hooks = [HookPoint(0), HookPoint(14), HookPoint(28)]
    batch = contract.batch_of(ordinary([40, 70, 3, 25], seed=3))
    counted_T = batch.position_T > 0
    tuned = candidate_runner.at(hooks).run(batch, final=True)
    base = candidate_runner.base().at(hooks).run(batch)
    again = candidate_runner.at(hooks).run(batch, final=True)
    expected = HfRunner(reference_candidate, hooks).run(batch, final=True)
    plain = HfRunner(reference, hooks).run(batch)
    for hook in hooks:
        check_close(tuned.hooks[hook.name][counted_T], expected.hooks[hook.name][counted_T], hook.name)
        check_close(base.hooks[hook.name][counted_T], plain.hooks[hook.name][counted_T], hook.name)
        assert torch.equal(tuned.hooks[hook.name], again.hooks[hook.name])
        moved_TD = (tuned.hooks[hook.name] - base.hooks[hook.name])[counted_T]
        assert float(moved_TD.norm()) > 1e-3 * float(plain.hooks[hook.name][counted_T].norm())
    assert tuned.final_TD is not None and expected.final_TD is not None
    check_close(tuned.final_TD[counted_T], expected.final_TD[counted_T], "final")


def test_only_the_blocks_that_are_read_are_there(make_model: Callable[..., Path]) -> None:
    from ft_audit.engine.models.load import load_model
    from ft_audit.engine.models.reference import resolve_model

    source = resolve_model(str(make_model("qwen2", **WIDE)), Path())
    hooks = [HookPoint(2, "resid_pre"), HookPoint(1)]
    reference = load_model(source, torch.float32, CPU)
    with open_vllm_runner(source, hooks, dtype=torch.float32, device=CPU, max_prompt_tokens=64) as runner:
        assert (runner.engine.config["num_hidden_layers"], source.config["num_hidden_layers"]) == (2, 4)
        batch = contract.batch_of([[5, 9, 30, 77], list(range(20, 80)), [3]])
        found = runner.run(batch)
        scratch = runner.engine.scratch
        assert list(scratch.iterdir()) == []
        with pytest.raises(ConfigError, match="not started for resid_post/2"):
            runner.at([HookPoint(2)])
    assert not scratch.exists()
    expected = HfRunner(reference, hooks).run(batch)
    for hook in hooks:
        contract.assert_close(found.hooks[hook.name], expected.hooks[hook.name], hook.name)


def test_an_engine_that_dies_is_an_error_and_no_wait(make_model: Callable[..., Path]) -> None:
    from ft_audit.engine.models.reference import resolve_model

    source = resolve_model(str(make_model("llama", **WIDE)), Path())
    with open_vllm_runner(
        source, [HookPoint(1)], dtype=torch.float32, device=CPU, max_prompt_tokens=64
    ) as runner:
        scratch = runner.engine.scratch
        runner.engine.process.kill()
        with pytest.raises(ModelError, match=r"ended with code -9: .*precompute\.runner hf"):
            runner.run(contract.batch_of([[5, 9, 30]]))
    assert not scratch.exists()


def test_a_model_that_hands_nothing_out_is_refused(make_model: Callable[..., Path]) -> None:
    from ft_audit.engine.models.reference import resolve_model

    source = resolve_model(str(make_model("gemma3_text")), Path())
    with pytest.raises(ModelError, match=r"\(SupportsEagle3\): give precompute\.runner hf"):
        open_vllm_runner(source, [HookPoint(1)], dtype=torch.float32, device=CPU, max_prompt_tokens=64)


def test_untrue_states_are_refused(candidate_runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = candidate_runner.base().at([HookPoint(14)])
    batch = contract.batch_of([[0, 50, 60]])
    true = list(runner._extract([[0, 50, 60]]))
    for change, message in ((0.0, "all zero"), (float("nan"), "not finite")):
        states = true[0][1].clone()
        states[1] = change
        monkeypatch.setattr(runner, "_extract", lambda _prompts, states=states: iter([(0, states)]))
        with pytest.raises(ModelError, match=message):
            runner.run(batch)
    same = true[0][1][:1].expand(8, -1, -1)
    monkeypatch.setattr(runner, "_extract", lambda prompts: ((i, same) for i in range(len(prompts))))
    with pytest.raises(ModelError, match="different tokens have the same states"):
        runner.probe()
