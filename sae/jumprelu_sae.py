"""Owns JumpReluSae: one dictionary in memory, whatever file format it came from.

Legend of shapes: T tokens, N non-zeros, D width of what is read, O width of what is reconstructed (D unless
the dictionary is a transcoder), F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ft_audit.kernels.decode import decode, squared_errors
from ft_audit.kernels.jumprelu.input_norm import InputNorm, normalise_rows
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

Kind = Literal["sae", "transcoder", "crosscoder", "pair_difference", "pair_crosscoder"]
# What of a fine-tune and its base a dictionary reads: tuned - base, or base and tuned side by side.
PairReading = Literal["difference", "crosscoder"]


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
    also_reads: tuple[str, ...] = ()
    """Further hooks of a crosscoder, whose activations follow those of the first along D."""
    writes: tuple[str, ...] = ()
    """The hooks that a transcoder reconstructs; empty where they are those it reads."""
    pair: PairReading | None = None
    """What it reads of two models at its hook; None for a dictionary of one model."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The hooks that are read, side by side in this order: `("resid_post/22",)` for most."""
        return (f"{self.site}/{self.layer}", *self.also_reads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The hooks that are reconstructed, side by side in this order."""
        return self.writes or self.inputs

    @property
    def kind(self) -> Kind:
        """What it reads and reconstructs."""
        if self.pair is not None:
            return "pair_difference" if self.pair == "difference" else "pair_crosscoder"
        if self.writes:
            return "transcoder"
        return "crosscoder" if self.also_reads else "sae"


def is_bfloat16_exact(tensor: Tensor) -> bool:
    """Whether bfloat16 holds every value of `tensor` without rounding."""
    return torch.equal(tensor.bfloat16().to(tensor.dtype), tensor)


@dataclass(frozen=True, slots=True)
class JumpReluSae:
    """Encoder and decoder in float32, on the CPU when loaded; `weights` moves what encoding needs.

    With `topk`, only so many features of a token may fire, the largest: a TopK dictionary is one with
    thresholds of 0. Its `input_norm` is done to every token before encoding and undone after decoding.
    """

    spec: SaeSpec
    w_enc_DF: Tensor
    w_dec_FD: Tensor
    """[F, O]; the name is that of the usual case."""
    b_enc_F: Tensor
    b_dec_D: Tensor
    """[O]"""
    threshold_F: Tensor
    apply_b_dec_to_input: bool
    topk: int | None = None
    input_norm: InputNorm = "none"
    w_skip_DO: Tensor | None = None
    """A transcoder's affine part, added to what the features make: x @ w_skip."""

    def __post_init__(self) -> None:
        d_in, width = self.spec.d_in, self.spec.width
        assert self.w_enc_DF.shape == (d_in, width) and self.w_dec_FD.shape == (width, self.d_out)
        assert self.b_enc_F.shape == (width,) and self.threshold_F.shape == (width,)
        assert self.b_dec_D.shape == (self.d_out,)
        assert self.spec.writes or self.d_out == d_in
        assert self.w_skip_DO is None or self.w_skip_DO.shape == (d_in, self.d_out)
        assert not (self.apply_b_dec_to_input and self.spec.writes), "b_dec lies in the output's space"

    @property
    def d_out(self) -> int:
        """The width of what is reconstructed."""
        return self.w_dec_FD.shape[1]

    @property
    def activation(self) -> str:
        """What makes a feature fire: `jumprelu`, `relu` where every threshold is 0, or `topk`."""
        if self.topk is not None:
            return "topk"
        return "jumprelu" if bool((self.threshold_F > 0).any()) else "relu"

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
            topk=self.topk,
            input_norm=self.input_norm,
        )

    def to(self, device: torch.device | str) -> JumpReluSae:
        """The same dictionary with its tensors on `device`."""
        names = ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D", "threshold_F")
        moved = {name: getattr(self, name).to(device) for name in names}
        skip = None if self.w_skip_DO is None else self.w_skip_DO.to(device)
        return replace(self, **moved, w_skip_DO=skip)

    def decode(self, rows: SparseRows, backend: str = "auto") -> Tensor:
        """What the features make, [T, O] in float32, on the device of `rows`; never builds a dense [T, F].

        All of the reconstruction, unless the dictionary normalises its input or has an affine part: see
        `reconstruct`. Where `rows` lie on another device, the decoder is moved on every call: keep one that
        `to` gave.
        """
        return decode(rows, *self._decoder(rows), backend)

    def reconstruct(self, rows: SparseRows, x_TD: Tensor, backend: str = "auto") -> Tensor:
        """What the dictionary takes `outputs` to be [T, O], float32, given the tokens that `rows` encode."""
        y_TO = self.decode(rows, backend)
        if self.input_norm != "none":
            normed = normalise_rows(x_TD, self.input_norm)
            y_TO = y_TO * normed.scale_T1 + normed.shift_T1
        if self.w_skip_DO is not None:
            y_TO = y_TO + x_TD.float() @ self.w_skip_DO.to(x_TD.device)
        return y_TO

    def squared_errors(
        self, rows: SparseRows, x_TD: Tensor, y_TO: Tensor, backend: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Each token's |y - reconstruction|^2 and |y|^2 [T], float32, for the activations y at `outputs`.

        Unless the dictionary is a transcoder, y is x. The reconstruction is not written where the features
        alone make it.
        """
        if self.input_norm == "none" and self.w_skip_DO is None:
            return squared_errors(rows, y_TO, *self._decoder(rows), backend)
        exact_TO = y_TO.double()
        error_TO = exact_TO - self.reconstruct(rows, x_TD, backend).double()
        return error_TO.square().sum(1).float(), exact_TO.square().sum(1).float()

    def _decoder(self, rows: SparseRows) -> tuple[Tensor, Tensor]:
        assert rows.num_features == self.spec.width
        device = rows.value_N.device
        return self.w_dec_FD.to(device), self.b_dec_D.to(device)
