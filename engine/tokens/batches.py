"""Which prompts go through a model together: a plan that depends on lengths and budgets alone."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.errors import ConfigError

# What a batch costs beside its positions, in positions: a share of the budget, which is chosen so that a
# batch fills the device, and at least what launching a model's operations takes on a CPU.
BATCH_COST, MIN_BATCH_COST = 1 / 64, 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that are padded to `length` tokens and run together."""

    prompts: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Segments of whole prompts in the suite's order, each cut into batches of similar lengths."""

    segments: tuple[tuple[Batch, ...], ...]
    num_tokens: int

    @property
    def num_padded(self) -> int:
        """Token positions that the model computes, padding included."""
        return sum(batch.length * len(batch.prompts) for segment in self.segments for batch in segment)

    @property
    def padding_share(self) -> float:
        """Share of the computed positions that are padding."""
        return 1.0 - self.num_tokens / self.num_padded if self.num_padded else 0.0

    @property
    def sha256(self) -> str:
        """The hash of who runs with whom; the last bits of every activation depend on it."""
        plain = [[[batch.length, list(batch.prompts)] for batch in segment] for segment in self.segments]
        return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def plan_batches(
    lengths_P: Sequence[int] | NDArray[np.integer],
    tokens_per_batch: int,
    tokens_per_segment: int,
    reverse: bool = False,
) -> BatchPlan:
    """Return the plan for prompts of these lengths.

    A segment takes prompts in order while its tokens stay within `tokens_per_segment`; within it prompts are
    sorted by length (ties by index) and cut into batches of at most `tokens_per_batch` positions, so that
    padding and what a batch costs by itself are least together. A prompt that is longer than a budget stands
    alone. `reverse` fills each batch from the long end instead: the same segments, but other neighbours and
    other paddings, as the A/A control needs.

    Raises:
        ConfigError: a budget below 1.
    """
    for name, budget in (("tokens_per_batch", tokens_per_batch), ("tokens_per_segment", tokens_per_segment)):
        if budget < 1:
            raise ConfigError(f"precompute.{name}: {budget} tokens hold no prompt; give at least 1")
    lengths = [int(length) for length in lengths_P]
    assert all(length > 0 for length in lengths), "an empty prompt cannot run"
    segments: list[tuple[Batch, ...]] = []
    members: list[int] = []
    held = 0
    for prompt, length in enumerate(lengths):
        if members and held + length > tokens_per_segment:
            segments.append(_batches(members, lengths, tokens_per_batch, reverse))
            members, held = [], 0
        members.append(prompt)
        held += length
    if members:
        segments.append(_batches(members, lengths, tokens_per_batch, reverse))
    return BatchPlan(tuple(segments), sum(lengths))


def _batches(members: list[int], lengths: list[int], budget: int, reverse: bool) -> tuple[Batch, ...]:
    """Return the segment's batches in the order in which they run."""
    ordered = sorted(members, key=lambda prompt: (lengths[prompt], prompt), reverse=reverse)
    sizes = [lengths[prompt] for prompt in ordered]
    ends = _filled(sizes, budget) if reverse else _cheapest(sizes, budget)
    starts = [0, *ends[:-1]]
    return tuple(
        Batch(tuple(ordered[start:end]), max(sizes[start:end]))
        for start, end in zip(starts, ends, strict=True)
    )


def _filled(sizes: list[int], budget: int) -> list[int]:
    """Return where each batch ends if it takes prompts as long as they fit."""
    ends: list[int] = []
    start = longest = 0
    for prompt, size in enumerate(sizes):
        longest = max(longest, size)
        if prompt > start and longest * (prompt + 1 - start) > budget:
            ends.append(prompt)
            start, longest = prompt, size
    return [*ends, len(sizes)]


def _cheapest(sizes: list[int], budget: int) -> list[int]:
    """Return where each batch of rising sizes ends, by dynamic programming over the ends."""
    price = max(MIN_BATCH_COST, round(BATCH_COST * budget))
    cost = np.zeros(len(sizes) + 1, np.int64)  # of all that stands before
    start_of = np.zeros(len(sizes) + 1, np.int64)
    for end in range(1, len(sizes) + 1):
        longest = sizes[end - 1]
        first = max(0, min(end - 1, end - budget // longest))
        through = cost[first:end] + longest * np.arange(end - first, 0, -1)
        best = int(through.argmin())
        cost[end], start_of[end] = through[best] + price, first + best
    ends = [len(sizes)]
    while start := int(start_of[ends[-1]]):
        ends.append(start)
    return ends[::-1]
