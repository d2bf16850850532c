"""What is learnt of two models, and which tokens of theirs."""

import numpy as np
import torch
from torch import Tensor

from ft_audit.sae.pairs import PairChunk, largest, learnt, ordinary_pairs, side_by_side


def chunk(num_tokens: int, seed: int = 0, first: int = 0) -> PairChunk:
    generator = torch.Generator().manual_seed(seed)
    base, tuned = (torch.randn(num_tokens, 6, generator=generator) for _ in range(2))
    return PairChunk(base, tuned, np.arange(first, first + num_tokens))


def test_what_is_learnt_is_cut_from_both_side_by_side() -> None:
    pair = chunk(5)
    (both,) = side_by_side(iter([pair]))
    assert torch.equal(learnt(both, "crosscoder"), torch.cat([pair.base_nD, pair.tuned_nD], 1))
    assert torch.equal(learnt(both, "tuned"), pair.tuned_nD)
    assert torch.equal(learnt(both, "difference"), pair.tuned_nD - pair.base_nD)


def test_the_largest_rows_stay_in_their_order_and_the_share_holds_over_all_chunks() -> None:
    chunks = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (7, 3, 1, 2, 10)]
    found = list(largest(iter(chunks), 0.3))
    assert sum(len(x) for x in found) == 6  # of 23
    for whole, kept in zip(chunks, found, strict=True):
        norms: Tensor = whole.norm(dim=1)
        wanted = norms.topk(len(kept)).indices.sort().values
        assert torch.equal(kept, whole[wanted])


def test_a_token_that_is_massive_in_either_model_is_left_out_of_both() -> None:
    first, second = chunk(50), chunk(4, seed=1, first=50)
    first.base_nD[3] *= 1000
    second.tuned_nD[2] *= 1000
    kept = list(ordinary_pairs(iter([first, second]), 10.0))
    assert [len(part.token_n) for part in kept] == [49, 3]
    assert 3 not in kept[0].token_n and list(kept[1].token_n) == [50, 51, 53]
    assert torch.equal(kept[1].tuned_nD, second.tuned_nD[[0, 1, 3]])
