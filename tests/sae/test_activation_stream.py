"""Cutting, filtering and shuffling a stream of activations."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ft_audit.sae.activation_stream import MassiveFilter, TokenStream, shuffled_batches


def numbered(sizes: list[int]) -> Iterator[Tensor]:
    """Chunks [n, 2] whose rows carry their own number."""
    start = 0
    for size in sizes:
        number_n = torch.arange(start, start + size, dtype=torch.float32)
        yield torch.stack([number_n, -number_n], dim=1)
        start += size


def numbers(chunks: Iterator[Tensor]) -> list[int]:
    return [int(value) for chunk in chunks for value in chunk[:, 0]]


def test_portions_follow_each_other_without_a_gap() -> None:
    stream = TokenStream(numbered([7, 0, 10, 3]))
    assert numbers(stream.take(5)) == list(range(5))
    assert numbers(stream.take(0)) == []
    assert numbers(stream.take(12)) == list(range(5, 17))
    assert numbers(stream.take(100)) == [17, 18, 19]
    assert numbers(stream.take(1)) == []


def test_massive_tokens_are_left_out_and_counted() -> None:
    x_nD = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    x_nD[[0, 150, 299]] *= 1000.0
    for sample_tokens in (50, 300, 10_000):  # also when the stream is shorter than the sample
        massive = MassiveFilter(10.0, sample_tokens)
        kept = torch.cat(list(massive(iter(x_nD.split(40)))))
        assert massive.num_left_out == 3
        assert torch.equal(kept, x_nD[x_nD.norm(dim=1) < 100])


def test_an_empty_stream_stays_empty() -> None:
    assert list(MassiveFilter(10.0)(iter(()))) == []
    assert list(shuffled_batches(iter(()), batch=4, buffer_tokens=8, reuse=2, seed=0)) == []


def shuffled(sizes: list[int], *, buffer_tokens: int = 40, reuse: int = 1, seed: int = 0) -> list[Tensor]:
    return list(
        shuffled_batches(numbered(sizes), batch=10, buffer_tokens=buffer_tokens, reuse=reuse, seed=seed)
    )


def test_every_full_batch_of_tokens_goes_out_once() -> None:
    batches = shuffled([33, 1, 50, 19])  # 103 tokens: the last three are no batch
    assert all(batch.shape == (10, 2) for batch in batches)
    assert sorted(numbers(iter(batches))) == list(range(100))


def test_batches_are_mixed_across_the_buffer() -> None:
    batches = shuffled([200])
    spans = [float(batch[:, 0].max() - batch[:, 0].min()) for batch in batches]
    assert min(spans) > 10  # an unshuffled batch spans 9
    assert numbers(iter(batches)) != numbers(iter(shuffled([200], seed=1)))
    assert numbers(iter(batches)) == numbers(iter(shuffled([60, 140])))


def test_a_stream_shorter_than_the_buffer_is_shuffled_whole() -> None:
    batches = shuffled([30], buffer_tokens=1000)
    assert sorted(numbers(iter(batches))) == list(range(30))
    assert numbers(iter(batches)) != list(range(30))


def test_reuse_repeats_tokens_that_often_on_average() -> None:
    given = numbers(iter(shuffled([200], reuse=3)))
    assert len(given) == 3 * 200
    assert set(given) == set(range(200))


def test_what_goes_out_is_not_overwritten() -> None:
    batches = shuffled([200])
    assert all(torch.equal(batch[:, 0], -batch[:, 1]) for batch in batches)
    assert len(set(numbers(iter(batches)))) == 200
