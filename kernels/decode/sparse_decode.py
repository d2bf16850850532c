"""Owns decoding sparse rows, and its errors, on whichever backend serves the rows' device.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ft_audit.kernels.decode import cpu, naive
from ft_audit.kernels.jumprelu.backends import resolve_backend
from ft_audit.kernels.sparse_rows import SparseRows


class _Path(NamedTuple):
    decode: Callable[[SparseRows, Tensor, Tensor | None], Tensor]
    squared_errors: Callable[[SparseRows, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def decode(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None, backend: str = "auto") -> Tensor:
    """`activations @ w_dec + b_dec` as float32 [T, D]; `w_dec` in float32 or bfloat16, no gradients.

    Products are added in float32 in an order that a backend and its device fix; `b_dec` comes last.
    """
    _check(rows, w_dec_FD, b_dec_D)
    return _path(backend, w_dec_FD.device).decode(rows, w_dec_FD.detach().contiguous(), _plain(b_dec_D))


def squared_errors(
    rows: SparseRows, x_TD: Tensor, w_dec_FD: Tensor, b_dec_D: Tensor | None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """|x - decoded|^2 and |x|^2 of every row, float32 [T] each; `x_TD` in any float dtype.

    The reconstruction is that of `decode` and is never written to memory, save by the naive path. Its
    distance from `x_TD` is squared and added in float64, then rounded once.
    """
    _check(rows, w_dec_FD, b_dec_D)
    assert x_TD.shape == (rows.num_rows, w_dec_FD.shape[1]) and x_TD.device == w_dec_FD.device
    path = _path(backend, w_dec_FD.device)
    if x_TD.dtype not in (torch.float32, torch.bfloat16):
        x_TD = x_TD.float()
    return path.squared_errors(
        rows, x_TD.detach().contiguous(), w_dec_FD.detach().contiguous(), _plain(b_dec_D)
    )


def _check(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> None:
    assert w_dec_FD.dim() == 2 and w_dec_FD.shape[0] == rows.num_features, w_dec_FD.shape
    assert w_dec_FD.dtype in (torch.float32, torch.bfloat16), w_dec_FD.dtype
    assert w_dec_FD.device == rows.value_N.device, (w_dec_FD.device, rows.value_N.device)
    if b_dec_D is not None:
        assert b_dec_D.shape == w_dec_FD.shape[1:] and b_dec_D.device == w_dec_FD.device


def _plain(b_dec_D: Tensor | None) -> Tensor | None:
    return None if b_dec_D is None else b_dec_D.detach().float().contiguous()


def _path(backend: str, device: torch.device) -> _Path:
    concrete = resolve_backend(backend, device)
    if concrete == "triton":
        # Imported where it is chosen: machines without Triton run the other two.
        from ft_audit.kernels.decode import triton_decode

        return _Path(triton_decode.decode, triton_decode.squared_errors)
    if concrete == "cpu":
        return _Path(cpu.decode, cpu.squared_errors)
    return _Path(naive.decode, naive.squared_errors)
