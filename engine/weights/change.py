"""What a fine-tune does to one matrix: replaces it, adds a low-rank product, or rewrites some of its rows.

Shapes: r rows of a piece, M rows, N columns, R rank.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ft_audit.engine.weights.tensors import Matrix, not_finite

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Piece(NamedTuple):
    """Some rows of the change."""

    same_bits: bool
    change_rN: Tensor | None
    """dW in float32; None where it is zero throughout."""


class Change(Protocol):
    """One matrix after the fine-tune, beside the base's."""

    @property
    def dtype(self) -> str | None:
        """The tuned matrix's own, as safetensors calls it; None where the change is added to the base's."""
        ...

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """[M, R] and [R, N] whose product is dW, where it comes as one."""
        ...

    def piece(self, start: int, stop: int, base_rN: Tensor) -> Piece:
        """Return rows `start` to `stop` of the change, given the base's as stored."""
        ...


@dataclass(frozen=True, slots=True)
class Replaced:
    """A matrix that the fine-tune brings whole."""

    tuned: Matrix
    ref: str
    factors: None = None

    @property
    def dtype(self) -> str:
        return self.tuned.dtype

    def piece(self, start: int, stop: int, base_rN: Tensor) -> Piece:
        tuned_rN = self.tuned.rows(start, stop)
        if same_bits(base_rN, tuned_rN):
            return Piece(True, None)
        change_rN = tuned_rN.float() - base_rN.float()
        if not bool(torch.isfinite(change_rN.sum(dtype=torch.float64))):
            raise not_finite(self.ref, self.tuned.name)
        return Piece(False, change_rN if bool(change_rN.any()) else None)


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA's product, added to what is there; the product is float32 whatever the base is."""

    left_MR: Tensor
    right_RN: Tensor
    dtype: None = None

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        return self.left_MR, self.right_RN

    def piece(self, start: int, stop: int, base_rN: Tensor) -> Piece:
        return _added(self.left_MR[start:stop] @ self.right_RN)


@dataclass(frozen=True, slots=True)
class Added:
    """A change that is given whole, such as DoRA's or a bias's."""

    change_MN: Tensor
    dtype: None = None
    factors: None = None

    def piece(self, start: int, stop: int, base_rN: Tensor) -> Piece:
        return _added(self.change_MN[start:stop])


@dataclass(frozen=True, slots=True)
class SomeRows:
    """Rows of an embedding that the fine-tune brings anew; all others stay."""

    index_I: Tensor
    value_IN: Tensor
    dtype: None = None
    factors: None = None

    def piece(self, start: int, stop: int, base_rN: Tensor) -> Piece:
        here_I = (self.index_I >= start) & (self.index_I < stop)
        change_rN = torch.zeros(base_rN.shape)
        rows = self.index_I[here_I] - start
        change_rN[rows] = self.value_IN[here_I] - base_rN[rows].float()
        return _added(change_rN)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same bytes; a NaN equals itself and 0 is not -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = _BITS[one.element_size()]
    return torch.equal(one.contiguous().view(bits), other.contiguous().view(bits))


def _added(change_rN: Tensor) -> Piece:
    changed = bool(change_rN.any())
    return Piece(not changed, change_rN if changed else None)
