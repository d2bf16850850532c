"""Owns Encoder: weights prepared once, activations in, exact sparse rows out.

Legend of shapes: T tokens, D d_model, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from ft_audit.errors import ModelError, SaeError
from ft_audit.kernels.jumprelu.backends import resolve_backend
from ft_audit.kernels.jumprelu.cpu import CpuEncoder, NotFiniteError
from ft_audit.kernels.jumprelu.input_norm import normalise_rows
from ft_audit.kernels.jumprelu.naive import encode_naive
from ft_audit.kernels.jumprelu.topk import TopKEncoder
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

MAX_ROWS = 1024  # where the backend has no better number of its own


class _BlockEncoder(Protocol):
    def encode(self, x_TD: Tensor, /) -> SparseRows:
        """The rows of one block; raises NotFiniteError on NaN or infinite activations."""


class Encoder:
    """Encodes blocks of activations with one set of weights and buffers; not for several threads at once.

    `backend` is the concrete one in use, `auto` resolved. A block has at most `max_rows` rows, by default
    what suits the backend. With Triton, a row on which more than `capacity` features fire is computed twice.
    Where only the k largest may fire, `cpu` and `triton` share one path of plain torch operations.
    """

    def __init__(
        self,
        weights: JumpReluWeights,
        backend: str = "auto",
        max_rows: int | None = None,
        capacity: int = 512,
    ) -> None:
        assert (max_rows is None or max_rows > 0) and capacity > 0
        self.weights = weights
        self.backend = resolve_backend(backend, weights.device)
        self.max_rows = max_rows or MAX_ROWS
        self._block: _BlockEncoder
        self._choice: Callable[[], str]
        # Rows are normalised here, once for all paths.
        weights = replace(weights, input_norm="none")
        if weights.topk is not None and self.backend != "naive":
            self._block, self._choice = (
                _Checked(TopKEncoder(weights).encode),
                lambda: "topk: float32 products",
            )
        elif self.backend == "triton":
            # Machines without Triton never get here.
            from ft_audit.kernels.jumprelu.triton_encoder import TritonEncoder

            triton_encoder = TritonEncoder(weights, max_rows, capacity)
            self.max_rows = triton_encoder.max_rows
            self._block, self._choice = triton_encoder, lambda: f"triton: {triton_encoder.plan}"
        elif self.backend == "cpu":
            cpu_encoder = CpuEncoder(weights, self.max_rows)
            # Which precision screens may be settled only by the first block.
            self._choice = lambda: f"cpu: {_short(cpu_encoder.screening)} screening"
            self._block = cpu_encoder
        else:
            self._block = _Checked(lambda x_TD: encode_naive(x_TD, weights))
            self._choice = lambda: "naive"

    def describe(self) -> str:
        """The concrete choice within the backend, as "cpu: int8 screening" or "triton: fused 128x128x64"."""
        return self._choice()

    def encode(self, x_TD: Tensor) -> SparseRows:
        """The features that fire on each row of `x_TD` (any float dtype, any T), on the weights' device.

        Raises SaeError when D is not the dictionary's, ModelError on NaN or infinite activations.
        """
        assert x_TD.dim() == 2 and x_TD.is_floating_point() and x_TD.device == self.weights.device
        if x_TD.shape[1] != self.weights.d_in:
            raise SaeError(
                f"the dictionary reads {self.weights.d_in} dimensions, the activations have {x_TD.shape[1]}; "
                f"choose a dictionary trained on this model"
            )
        if self.weights.input_norm != "none":
            x_TD = normalise_rows(x_TD, self.weights.input_norm).x_TD
        blocks = x_TD.split(self.max_rows) if x_TD.shape[0] else (x_TD,)
        try:
            parts = [self._block.encode(x_BD) for x_BD in blocks]
        except NotFiniteError:
            raise _not_finite(x_TD) from None
        return parts[0] if len(parts) == 1 else SparseRows.concatenate(parts)


class _Checked:
    """A path that does not look for NaN itself."""

    def __init__(self, encode: Callable[[Tensor], SparseRows]) -> None:
        self._encode = encode

    def encode(self, x_TD: Tensor) -> SparseRows:
        # A NaN compares false with every threshold and would pass for a token on which nothing fires.
        if not bool(x_TD.isfinite().all()):
            raise NotFiniteError
        return self._encode(x_TD)


def _short(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _not_finite(x_TD: Tensor) -> ModelError:
    row = int((~x_TD.isfinite().all(dim=1)).nonzero()[0, 0])
    return ModelError(
        f"row {row} of {x_TD.shape[0]} activations holds NaN or infinite values; "
        f"check the model's weights, and do not run it in float16"
    )


def encode(x_TD: Tensor, weights: JumpReluWeights, backend: str = "auto", capacity: int = 512) -> SparseRows:
    """One-off encoding; keep an Encoder where there is more than one block."""
    return Encoder(weights, backend, capacity=capacity).encode(x_TD)
