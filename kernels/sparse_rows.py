"""Owns SparseRows: which features fired on each token and how strongly, in CSR form.

Legend of shapes: T tokens, N non-zeros, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SparseRows:
    """One row per token: exact support, features strictly ascending within a row."""

    indptr_T1: Tensor  # int64 [T + 1]; row t owns [indptr[t], indptr[t + 1])
    index_N: Tensor  # int32 [N]
    value_N: Tensor  # bfloat16 [N], rounded once from float32
    num_features: int

    def __post_init__(self) -> None:
        assert self.indptr_T1.dtype == torch.int64 and self.indptr_T1.dim() == 1
        assert self.index_N.dtype == torch.int32 and self.index_N.dim() == 1
        assert self.value_N.dtype == torch.bfloat16 and self.value_N.shape == self.index_N.shape
        assert self.indptr_T1.numel() >= 1

    @property
    def num_rows(self) -> int:
        return self.indptr_T1.numel() - 1

    @property
    def num_nonzeros(self) -> int:
        return self.index_N.numel()

    @property
    def l0(self) -> float:
        """Mean number of features that fired on a row; 0.0 without rows."""
        return self.num_nonzeros / self.num_rows if self.num_rows else 0.0

    def row(self, i: int) -> tuple[Tensor, Tensor]:
        """The features of row `i` and their values, both [n]."""
        start, stop = int(self.indptr_T1[i]), int(self.indptr_T1[i + 1])
        return self.index_N[start:stop], self.value_N[start:stop]

    def dense(self) -> Tensor:
        """The same activations as float32 [T, F]: for tests and small inputs, never for a corpus."""
        dense_TF = torch.zeros(self.num_rows, self.num_features, device=self.value_N.device)
        counts_T = self.indptr_T1.diff()
        row_N = torch.repeat_interleave(torch.arange(self.num_rows, device=counts_T.device), counts_T)
        dense_TF[row_N, self.index_N.long()] = self.value_N.float()
        return dense_TF

    def to(self, device: torch.device | str) -> Self:
        """The same rows on `device`."""
        return type(self)(
            self.indptr_T1.to(device), self.index_N.to(device), self.value_N.to(device), self.num_features
        )

    def take(self, row_S: Tensor) -> Self:
        """The rows numbered `row_S` (int64 [S], on the rows' device), in that order."""
        counts_S = self.indptr_T1.diff()[row_S]
        indptr_S1 = torch.cat([counts_S.new_zeros(1), counts_S.cumsum(0)])
        shift_S = self.indptr_T1[row_S] - indptr_S1[:-1]
        size = int(indptr_S1[-1])
        entry_N = torch.repeat_interleave(shift_S, counts_S, output_size=size)
        entry_N += torch.arange(size, device=entry_N.device)
        return type(self)(indptr_S1, self.index_N[entry_N], self.value_N[entry_N], self.num_features)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """The rows of all parts, in order; raises AssertionError if they disagree on `num_features`."""
        assert parts and len({part.num_features for part in parts}) == 1
        shifts = [0]
        for part in parts:
            shifts.append(shifts[-1] + part.num_nonzeros)
        indptr_T1 = torch.cat(
            [parts[0].indptr_T1[:1]]
            + [part.indptr_T1[1:] + shift for part, shift in zip(parts, shifts, strict=False)]
        )
        index_N = torch.cat([part.index_N for part in parts])
        value_N = torch.cat([part.value_N for part in parts])
        return cls(indptr_T1, index_N, value_N, parts[0].num_features)
