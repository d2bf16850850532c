"""Owns what stands between a model's activations and the trainer: cutting, filtering, shuffling, batching.

Legend of shapes: n tokens of a chunk, B tokens of a batch, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class TokenStream:
    """Chunks [n, D] read once, front to back, in portions of exactly the tokens asked for."""

    def __init__(self, chunks: Iterator[Tensor]) -> None:
        self._chunks = chunks
        self._rest: Tensor | None = None

    def take(self, num_tokens: int) -> Iterator[Tensor]:
        """Yields chunks until `num_tokens` were given or the stream ended."""
        while num_tokens > 0:
            chunk = self._rest if self._rest is not None else next(self._chunks, None)
            if chunk is None:
                return
            self._rest = chunk[num_tokens:] if chunk.shape[0] > num_tokens else None
            taken = chunk[:num_tokens]
            num_tokens -= taken.shape[0]
            if taken.shape[0]:
                yield taken


class MassiveFilter:
    """Leaves out tokens whose norm exceeds `factor` times the median norm, and counts them.

    Attention sinks are not always special tokens: the first token of a plain text is one too, and one of
    them outweighs a thousand ordinary tokens in a squared error. The median is that of the first
    `sample_tokens`.
    """

    def __init__(self, factor: float, sample_tokens: int = 4096) -> None:
        self.factor = factor
        self.sample_tokens = sample_tokens
        self.num_left_out = 0

    def __call__(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        held: list[Tensor] = []
        limit: float | None = None
        for chunk in chunks:
            if limit is None:
                held.append(chunk)
                if sum(part.shape[0] for part in held) < self.sample_tokens:
                    continue
                chunk = torch.cat(held)
                held = []
                limit = self._limit(chunk)
            yield self._filtered(chunk, limit)
        if held:
            chunk = torch.cat(held)
            yield self._filtered(chunk, self._limit(chunk))

    def _limit(self, x_nD: Tensor) -> float:
        return self.factor * float(x_nD.norm(dim=1).median()) if x_nD.shape[0] else float("inf")

    def _filtered(self, x_nD: Tensor, limit: float) -> Tensor:
        ordinary_n = x_nD.norm(dim=1) <= limit
        self.num_left_out += int((~ordinary_n).sum())
        return x_nD[ordinary_n]


def shuffled_batches(
    chunks: Iterator[Tensor], *, batch: int, buffer_tokens: int, reuse: int, seed: int
) -> Iterator[Tensor]:
    """Yields [batch, D] batches of tokens drawn at random from a bounded buffer; deterministic in `seed`.

    Each arriving batch takes the places of one drawn at random, which goes out for the last time; for
    `reuse` above 1, that many minus one batches are drawn beside it and stay. What is left at the end goes
    out in random order, an incomplete last batch not at all.
    """
    generator = torch.Generator().manual_seed(seed)
    buffer_SD: Tensor | None = None
    filled = 0
    capacity = max(buffer_tokens // batch, 1) * batch
    for x_BD in _rebatched(chunks, batch):
        if buffer_SD is None:
            buffer_SD = torch.empty(capacity, x_BD.shape[1], device=x_BD.device)
        if filled < capacity:
            buffer_SD[filled : filled + batch] = x_BD
            filled += batch
            continue
        for _ in range(reuse - 1):
            yield buffer_SD[_draw(capacity, batch, generator)]
        leaving_B = _draw(capacity, batch, generator)
        yield buffer_SD[leaving_B]
        buffer_SD[leaving_B] = x_BD
    for _ in range(reuse if buffer_SD is not None else 0):
        assert buffer_SD is not None
        for places_B in torch.randperm(filled, generator=generator).split(batch):
            yield buffer_SD[places_B]


def _draw(capacity: int, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(capacity, generator=generator)[:batch]


def _rebatched(chunks: Iterator[Tensor], batch: int) -> Iterator[Tensor]:
    """Full batches in the order of the stream; the incomplete last one is dropped."""
    held: list[Tensor] = []
    num_held = 0
    for chunk in chunks:
        held.append(chunk.float())
        num_held += chunk.shape[0]
        if num_held < batch:
            continue
        joined = torch.cat(held)
        full = num_held // batch * batch
        yield from joined[:full].split(batch)
        held, num_held = [joined[full:]], num_held - full
