"""Owns JumpReluSae: one dictionary in memory, whatever file format it came from.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ft_audit.kernels.decode import decode, squared_errors
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows


@dataclass(frozen=True, slots=True)
class SaeSpec:
    """What is known about a dictionary beside its tensors."""

    name: str
    layer: int
    site: str
    hook_point: str
    width: int
    d_in: int
    model_name: str
    l0: float | None
    sha256: str  # over names, dtypes, shapes and bytes of the stored tensors


def is_bfloat16_exact(tensor: Tensor) -> bool:
    """Whether bfloat16 holds every value of `tensor` without rounding."""
    return torch.equal(tensor.bfloat16().to(tensor.dtype), tensor)


@dataclass(frozen=True, slots=True)
class JumpReluSae:
    """Encoder and decoder in float32, on the CPU when loaded; `weights` moves what encoding needs."""

    spec: SaeSpec
    w_enc_DF: Tensor
    w_dec_FD: Tensor
    b_enc_F: Tensor
    b_dec_D: Tensor
    threshold_F: Tensor
    apply_b_dec_to_input: bool

    def __post_init__(self) -> None:
        d_in, width = self.spec.d_in, self.spec.width
        assert self.w_enc_DF.shape == (d_in, width) and self.w_dec_FD.shape == (width, d_in)
        assert self.b_enc_F.shape == (width,) and self.threshold_F.shape == (width,)
        assert self.b_dec_D.shape == (d_in,)

    def encoder_dtype(self) -> torch.dtype:
        """bfloat16 where it holds `w_enc` without rounding, else float32."""
        return torch.bfloat16 if is_bfloat16_exact(self.w_enc_DF) else torch.float32

    def weights(self, device: torch.device | str, dtype: torch.dtype | None = None) -> JumpReluWeights:
        """What an Encoder needs, `w_enc` as `dtype` (bfloat16 or float32), the rest as float32.

        Without `dtype`, `encoder_dtype()`.
        """
        dtype = dtype or self.encoder_dtype()
        return JumpReluWeights(
            w_enc_DF=self.w_enc_DF.to(device, dtype).contiguous(),
            b_enc_F=self.b_enc_F.to(device, torch.float32),
            threshold_F=self.threshold_F.to(device, torch.float32),
            b_dec_D=self.b_dec_D.to(device, torch.float32) if self.apply_b_dec_to_input else None,
        )

    def to(self, device: torch.device | str) -> JumpReluSae:
        """The same dictionary with its tensors on `device`."""
        names = ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D", "threshold_F")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def decode(self, rows: SparseRows, backend: str = "auto") -> Tensor:
        """The reconstruction [T, D] in float32, on the device of `rows`; never builds a dense [T, F].

        Where `rows` lie on another device, the decoder is moved on every call: keep one that `to` gave.
        """
        return decode(rows, *self._decoder(rows), backend)

    def squared_errors(self, rows: SparseRows, x_TD: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
        """Each token's |x - reconstruction|^2 and |x|^2 [T], float32, without writing the reconstruction."""
        return squared_errors(rows, x_TD, *self._decoder(rows), backend)

    def _decoder(self, rows: SparseRows) -> tuple[Tensor, Tensor]:
        assert rows.num_features == self.spec.width
        device = rows.value_N.device
        return self.w_dec_FD.to(device), self.b_dec_D.to(device)
