"""The diff statistics' benchmark: whole prompts in batches, bits that differ refused, every figure there."""

from dataclasses import replace

import pytest
import torch

from ft_audit.benchmarks.diff_stats import (
    cut_prompts,
    encode_pair,
    measure_pair,
    statistics,
    synthetic_pair,
    verify,
)
from ft_audit.benchmarks.harness import load_asked
from ft_audit.kernels.jumprelu import Encoder

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("lengths", "num_tokens", "ranges"),
    [
        ([3, 3, 3], 6, [(0, 2), (2, 3)]),
        ([3, 3, 3], 100, [(0, 3)]),
        ([9, 1, 9], 4, [(0, 1), (1, 2), (2, 3)]),
        ([2, 2, 1], 5, [(0, 3)]),
    ],
)
def test_batches_hold_whole_prompts(
    lengths: list[int], num_tokens: int, ranges: list[tuple[int, int]]
) -> None:
    indptr_P1 = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    assert cut_prompts(indptr_P1, num_tokens) == ranges


@torch.inference_mode()
def test_batches_of_prompts_give_the_bits_of_all_at_once() -> None:
    pair = synthetic_pair(24, 200, 150, CPU)
    encoder = Encoder(pair.weights, "cpu")
    batches, whole = encode_pair(pair, encoder, 50), encode_pair(pair, encoder, 150)
    assert (len(batches), len(whole)) == (4, 1)
    expected = statistics(whole, "naive")
    assert expected.num_tokens == 150
    assert expected.num_prompts == 4
    assert int(expected.fired_both.sum()) > 0
    verify(statistics(batches, "cpu"), expected, "cpu")


@torch.inference_mode()
def test_statistics_that_differ_in_a_bit_are_refused() -> None:
    pair = synthetic_pair(24, 200, 60, CPU)
    found = statistics(encode_pair(pair, Encoder(pair.weights, "cpu"), 60), "cpu")
    off = found.sum_base.copy()
    off[int(off.argmax())] *= 1 + 2.0**-52
    with pytest.raises(AssertionError, match="cpu: sum_base differs"):
        verify(replace(found, sum_base=off), found, "cpu")
    with pytest.raises(AssertionError, match="tokens and prompts"):
        verify(replace(found, num_tokens=59), found, "cpu")


@torch.inference_mode()
def test_a_pair_gives_what_is_asked() -> None:
    found = {figure.name: figure.value for figure in measure_pair(synthetic_pair(24, 200, 120, CPU), 60, 1)}
    asked = {name.split("/", 3)[3] for name in load_asked("diff_stats")}
    assert asked == {"share_of_encodes"}
    assert asked <= found.keys()
    assert found["tokens"] == 120
