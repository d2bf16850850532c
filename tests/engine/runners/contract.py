"""What every runner must do, whatever runs the model underneath; each check takes a way to make the runner.

Every check compares with plain Hugging Face, one prompt at a time, without padding and without our hooks. The
model given as `reference` is the same checkpoint in float32. Load this file by its path (`runpy.run_path`).

Shapes: B prompts, L padded positions, T real tokens in prompt order, D width of the residual stream.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ft_audit.engine.runners.forward import HookPoint, Runner
from ft_audit.engine.tokens.padded import PaddedBatch

RELATIVE_L2 = 1e-5  # of float32 activations, special tokens left out
LENGTHS = (1, 23, 7, 40, 2, 23, 31, 3, 12)


@dataclass(frozen=True)
class Case:
    """A model by two ways: a runner that can be made at any hooks, and plain Hugging Face."""

    make: Callable[[Sequence[HookPoint]], Runner]
    reference: Any
    """The Hugging Face model in float32."""
    special: Collection[int] = ()
    """Ids whose activations are massive; the first token's are as well."""

    def prompts(self, lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
        """Ragged prompts of ordinary tokens behind a special one, the second and the sixth alike."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = int(self.reference.config.get_text_config().vocab_size)
        plain = torch.tensor([i for i in range(min(vocabulary, 5000)) if i not in self.special])
        drawn = [plain[torch.randint(len(plain), (n,), generator=generator)].tolist() for n in lengths]
        if self.special:
            drawn = [[min(self.special), *ids[1:]] for ids in drawn]
        if len(drawn) > 5 and len(drawn[1]) == len(drawn[5]):
            drawn[5] = drawn[1]
        return drawn

    def states(self, ids: Sequence[int]) -> tuple[Tensor, ...]:
        """The embeddings, every block's output but the last's, and the final-normed states, each [L, D]."""
        with torch.inference_mode():
            out = self.reference(
                torch.tensor([ids], device=self.reference.device), output_hidden_states=True, use_cache=False
            )
        return tuple(state[0].float().cpu() for state in out.hidden_states)

    def counted(self, ids: Sequence[int]) -> Tensor:
        """Which positions are compared: no special token, and not the first one unless it stands alone."""
        keep = torch.tensor([i not in self.special for i in ids])
        keep[0] = len(ids) == 1 and not self.special
        return keep

    @property
    def layers(self) -> tuple[int, int, int]:
        """The first block, one in the middle and the last but one: they all have an entry of their own."""
        last = int(self.reference.config.get_text_config().num_hidden_layers) - 2
        return (0, max(1, last // 2), last)


def batch_of(prompts: Sequence[Sequence[int]], pad_id: int = 0, first_token: int = 0) -> PaddedBatch:
    """The prompts as one right-padded batch."""
    width = max(map(len, prompts))
    lengths = [len(ids) for ids in prompts]
    return PaddedBatch(
        torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in prompts]),
        torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths)),
        torch.cat([torch.arange(n) for n in lengths]),
        torch.arange(sum(lengths)) + first_token,
    )


def assert_close(found_TD: Tensor, expected_TD: Tensor, what: str) -> None:
    """The rows are the same up to the relative L2 error that float32 leaves, all together and one by one."""
    assert found_TD.shape == expected_TD.shape, what
    gap_TD = found_TD.float().cpu() - expected_TD
    assert float(gap_TD.norm() / expected_TD.norm()) <= RELATIVE_L2, what
    # A row in another's place is far off; rounding alone never makes one a hundred times worse than allowed.
    assert float((gap_TD.norm(dim=1) / expected_TD.norm(dim=1)).max()) <= 100 * RELATIVE_L2, what


def hooks_are_the_hidden_states(case: Case) -> None:
    """Ragged prompts: each row of each hook is the token's entry in Hugging Face's hidden states."""
    hooks = [HookPoint(layer) for layer in case.layers]
    prompts = case.prompts()
    runner = case.make(hooks)
    forward = runner.run(batch_of(prompts))
    assert set(forward.hooks) == {hook.name for hook in hooks} and forward.final_TD is None
    keep_T = torch.cat([case.counted(ids) for ids in prompts])
    states = [case.states(ids) for ids in prompts]
    for hook in hooks:
        found_TD = forward.hooks[hook.name]
        assert found_TD.device == runner.device and found_TD.dtype == torch.float32
        expected_TD = torch.cat([state[hook.layer + 1] for state in states])
        assert found_TD.shape == expected_TD.shape
        assert_close(found_TD.cpu()[keep_T], expected_TD[keep_T], hook.name)


def rows_are_in_prompt_order(case: Case) -> None:
    """In other company and another order a prompt keeps its rows; the same prompt twice is there twice."""
    hook = HookPoint(case.layers[1])
    prompts = case.prompts()
    runner = case.make([hook])
    order = [4, 0, 8, 3, 1, 7, 2, 6, 5]
    straight = runner.run(batch_of(prompts)).hooks[hook.name].cpu().split([len(ids) for ids in prompts])
    moved = runner.run(batch_of([prompts[p] for p in order])).hooks[hook.name].cpu()
    for prompt, rows in zip(order, moved.split([len(prompts[p]) for p in order]), strict=True):
        keep = case.counted(prompts[prompt])
        if bool(keep.any()):
            assert_close(rows[keep], straight[prompt][keep], f"prompt {prompt}")
    keep = case.counted(prompts[1])
    assert_close(straight[5][keep], straight[1][keep], "the same prompt twice")
    assert float((straight[1][3] - straight[1][4]).norm()) > 1e-2 * float(straight[1][3].norm())


def padding_id_is_of_no_matter(case: Case) -> None:
    """Whatever stands after a prompt, its rows are the same."""
    hook = HookPoint(case.layers[1])
    prompts = case.prompts()
    runner = case.make([hook])
    keep_T = torch.cat([case.counted(ids) for ids in prompts])
    first, second = (runner.run(batch_of(prompts, pad)).hooks[hook.name].cpu()[keep_T] for pad in (0, 7))
    assert_close(second, first, "another padding id")


def final_states_are_what_the_head_reads(case: Case) -> None:
    """The final-normed states: Hugging Face's last entry; hooks are the same with them as without."""
    hooks = [HookPoint(layer) for layer in case.layers[:2]]
    prompts = case.prompts()
    runner = case.make(hooks)
    with_final = runner.run(batch_of(prompts), final=True)
    without = runner.run(batch_of(prompts))
    assert with_final.final_TD is not None and with_final.final_TD.device == runner.device
    keep_T = torch.cat([case.counted(ids) for ids in prompts])
    expected_TD = torch.cat([case.states(ids)[-1] for ids in prompts])
    assert_close(with_final.final_TD.cpu()[keep_T], expected_TD[keep_T], "final")
    for hook in hooks:
        one, other = with_final.hooks[hook.name].cpu(), without.hooks[hook.name].cpu()
        assert_close(one[keep_T], other[keep_T], hook.name)


def batches_leave_nothing_behind(case: Case) -> None:
    """A batch is the same before and after others ran; a second runner on the model disturbs neither."""
    layers = case.layers
    prompts = case.prompts()
    first, second = case.make([HookPoint(layers[1])]), case.make([HookPoint(layers[0])])
    name = HookPoint(layers[1]).name
    before = first.run(batch_of(prompts)).hooks[name].cpu()
    second.run(batch_of(prompts[:2], first_token=100), final=True)
    first.run(batch_of(prompts[3:4]))
    after = first.run(batch_of(prompts)).hooks[name].cpu()
    assert torch.equal(before, after)


CHECKS: tuple[Callable[[Case], None], ...] = (
    hooks_are_the_hidden_states,
    rows_are_in_prompt_order,
    padding_id_is_of_no_matter,
    final_states_are_what_the_head_reads,
    batches_leave_nothing_behind,
)
