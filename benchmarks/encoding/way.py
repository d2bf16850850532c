"""Owns Way: one way to get sparse features from residuals, ready to run, and how its result is read.

Shapes: T tokens, N entries, D width of the residual stream, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

# What a way gives: tensors of one or more calls, in whatever form it has; None where it keeps nothing.
Result = SparseRows | list[tuple[Tensor, ...]] | None


class WayMissing(LookupError):
    """A way cannot run here, or its library is not installed; the message is the reason to report."""


class Entries(NamedTuple):
    """A result in the one form that is checked, in any order."""

    row_N: Tensor
    index_N: Tensor
    value_N: Tensor


@dataclass(frozen=True, slots=True)
class Way:
    """`encode` is what is timed; `read` is not, and is None for a way that finds nothing (the bare product).

    `top_k` is set where the way keeps the k largest of each row instead of those above a threshold;
    `describe` says what a way that chooses by itself has chosen.
    """

    name: str
    kind: Literal["ours", "peer", "limit"]
    encode: Callable[[Tensor], Result]
    read: Callable[[Result], Entries] | None
    top_k: int | None = None
    describe: Callable[[], str] | None = None


class Operands:
    """A dictionary's encoder in the precisions and layouts the ways ask for, each made once and shared."""

    def __init__(self, weights: JumpReluWeights) -> None:
        self.weights = weights
        self._made: dict[tuple[torch.dtype, str], Tensor] = {}
        self._buffers: dict[torch.dtype, Tensor] = {}

    def w_enc(self, dtype: torch.dtype, layout: Literal["DF", "FD"] = "DF") -> Tensor:
        """`w_enc` as [D, F], or as [F, D] in memory, `nn.Linear`'s layout."""
        if (dtype, layout) not in self._made:
            w_DF = self.weights.w_enc_DF.to(dtype)
            self._made[dtype, layout] = (w_DF if layout == "DF" else w_DF.t()).contiguous()
        return self._made[dtype, layout]

    def buffer(self, num_rows: int, dtype: torch.dtype) -> Tensor:
        """[num_rows, F] for dense results; all who ask write into the same memory, one after another."""
        have = self._buffers.get(dtype)
        if have is None or len(have) < num_rows:
            have = torch.empty(num_rows, self.weights.num_features, dtype=dtype, device=self.weights.device)
            self._buffers[dtype] = have
        return have[:num_rows]

    def b_dec(self, dtype: torch.dtype) -> Tensor:
        """`b_dec`, zeros where the dictionary subtracts none."""
        b_dec_D = self.weights.b_dec_D
        zeros_D = torch.zeros(self.weights.d_in, device=self.weights.device)
        return (zeros_D if b_dec_D is None else b_dec_D).to(dtype)


def num_bytes(result: Result) -> int:
    """Bytes of everything a result holds."""
    if result is None:
        return 0
    if isinstance(result, SparseRows):
        tensors: Sequence[Tensor] = (result.indptr_T1, result.index_N, result.value_N)
    else:
        tensors = [tensor for part in result for tensor in part]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def read_rows(result: Result) -> Entries:
    """The entries of SparseRows."""
    assert isinstance(result, SparseRows)
    counts_T = result.indptr_T1.diff()
    row_N = torch.repeat_interleave(torch.arange(result.num_rows, device=counts_T.device), counts_T)
    return Entries(row_N, result.index_N.long(), result.value_N.float())


def read_parts(result: Result) -> Entries:
    """The entries of (row, feature, value) parts."""
    assert isinstance(result, list)
    rows, features, values = (torch.cat(column) for column in zip(*result, strict=True))
    return Entries(rows, features, values.float())
