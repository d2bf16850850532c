"""Owns what a dictionary learns where two models read the same tokens.

Legend of shapes: n tokens of a chunk, D width of the residual stream, W width of what is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.sae.recipe import Learn


class PairChunk(NamedTuple):
    """Both models' residual streams at the same tokens, float32."""

    base_nD: Tensor
    tuned_nD: Tensor
    token_n: NDArray[np.int64]
    """Which tokens these are of the text that is read, for who can show them."""


def side_by_side(pairs: Iterator[PairChunk]) -> Iterator[Tensor]:
    """Base and tuned in one row [n, 2D]: a token is left out of both or of neither."""
    for pair in pairs:
        yield torch.cat([pair.base_nD, pair.tuned_nD], dim=1)


def ordinary_pairs(pairs: Iterator[PairChunk], factor: float) -> Iterator[PairChunk]:
    """The tokens that are massive in neither model: at most `factor` times each one's own median norm."""
    limits: list[float] = []
    for pair in pairs:
        norms_n = [pair.base_nD.norm(dim=1), pair.tuned_nD.norm(dim=1)]
        if not limits and len(pair.token_n):
            limits = [factor * float(norm_n.median()) for norm_n in norms_n]
        keep_n = torch.ones_like(norms_n[0], dtype=torch.bool)
        for norm_n, limit in zip(norms_n, limits, strict=False):
            keep_n &= norm_n <= limit
        yield PairChunk(pair.base_nD[keep_n], pair.tuned_nD[keep_n], pair.token_n[keep_n.cpu().numpy()])


def learnt(both_nW: Tensor, learn: Learn) -> Tensor:
    """What is learnt of base and tuned side by side [n, 2D]: one of them, their difference, or both."""
    if learn == "crosscoder":
        return both_nW
    base_nD, tuned_nD = both_nW.chunk(2, dim=1)
    if learn == "difference":
        return tuned_nD - base_nD
    return tuned_nD if learn == "tuned" else base_nD


def largest(chunks: Iterator[Tensor], share: float) -> Iterator[Tensor]:
    """Of each chunk [n, W], the given share of the rows with the largest norms, in their order."""
    carried = 0.0
    for x_nW in chunks:
        # What rounding leaves over goes to the next chunk, so that the share holds over all of them.
        wanted = carried + share * x_nW.shape[0]
        kept = min(int(wanted), x_nW.shape[0])
        carried = wanted - kept
        yield x_nW[x_nW.norm(dim=1).topk(kept).indices.sort().values] if share < 1 else x_nW
