"""Owns Encoder: weights prepared once, activations in, exact sparse rows out.

Legend of shapes: T tokens, D d_model, F features.
"""

from __future__ import annotations

from torch import Tensor

from ft_audit.errors import ModelError, SaeError
from ft_audit.kernels.jumprelu.backends import resolve_backend
from ft_audit.kernels.jumprelu.cpu import CpuEncoder, NotFiniteError
from ft_audit.kernels.jumprelu.naive import encode_naive
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows


class Encoder:
    """Encodes blocks of activations with one set of weights and buffers; not for several threads at once.

    `backend` is the concrete one in use, `auto` resolved.
    """

    def __init__(self, weights: JumpReluWeights, backend: str = "cpu", max_rows: int = 1024) -> None:
        assert max_rows > 0
        self.weights = weights
        self.backend = resolve_backend(backend, weights.device)
        self.max_rows = max_rows
        self._cpu = CpuEncoder(weights, max_rows) if self.backend == "cpu" else None

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
        blocks = x_TD.split(self.max_rows) if x_TD.shape[0] else (x_TD,)
        try:
            parts = [self._encode_block(x_BD) for x_BD in blocks]
        except NotFiniteError:
            raise _not_finite(x_TD) from None
        return parts[0] if len(parts) == 1 else SparseRows.concatenate(parts)

    def _encode_block(self, x_BD: Tensor) -> SparseRows:
        if self._cpu is not None:
            return self._cpu.encode(x_BD)
        # A NaN compares false with every threshold and would pass for a token on which nothing fires.
        if not bool(x_BD.isfinite().all()):
            raise NotFiniteError
        return encode_naive(x_BD, self.weights)


def _not_finite(x_TD: Tensor) -> ModelError:
    row = int((~x_TD.isfinite().all(dim=1)).nonzero()[0, 0])
    return ModelError(
        f"row {row} of {x_TD.shape[0]} activations holds NaN or infinite values; "
        f"check the model's weights, and do not run it in float16"
    )


def encode(x_TD: Tensor, weights: JumpReluWeights, backend: str = "auto") -> SparseRows:
    """One-off encoding; keep an Encoder where there is more than one block."""
    return Encoder(weights, backend).encode(x_TD)
