"""Owns the launches of sparse decoding on the device.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

import torch
import triton
from torch import Tensor

from ft_audit.kernels.decode.triton_kernels import decode_fwd_kernel, squared_errors_fwd_kernel
from ft_audit.kernels.sparse_rows import SparseRows

FEATURES_A_STEP = 8  # decoder rows under way at once
MAX_TILE = 512


def decode(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> Tensor:
    """`activations @ w_dec + b_dec` as float32 [T, D]."""
    d_in = w_dec_FD.shape[1]
    decoded_TD = torch.empty(rows.num_rows, d_in, device=w_dec_FD.device)
    if rows.num_rows:
        tile = _tile(d_in)
        decode_fwd_kernel[(rows.num_rows, triton.cdiv(d_in, tile))](
            rows.indptr_T1,
            rows.index_N,
            rows.value_N,
            w_dec_FD,
            b_dec_D,
            decoded_TD,
            d_in,
            HAS_BIAS=b_dec_D is not None,
            BLOCK_N=FEATURES_A_STEP,
            BLOCK_D=tile,
            num_warps=4,
        )
    return decoded_TD


def squared_errors(
    rows: SparseRows, x_TD: Tensor, w_dec_FD: Tensor, b_dec_D: Tensor | None
) -> tuple[Tensor, Tensor]:
    """|x - decoded|^2 and |x|^2 of every row, float32 [T] each."""
    d_in = w_dec_FD.shape[1]
    error_T = torch.empty(rows.num_rows, device=w_dec_FD.device)
    square_T = torch.empty_like(error_T)
    if rows.num_rows:
        squared_errors_fwd_kernel[(rows.num_rows,)](
            rows.indptr_T1,
            rows.index_N,
            rows.value_N,
            w_dec_FD,
            b_dec_D,
            x_TD,
            error_T,
            square_T,
            d_in,
            HAS_BIAS=b_dec_D is not None,
            BLOCK_N=FEATURES_A_STEP,
            BLOCK_D=_tile(d_in),
            num_warps=4,
        )
    return error_T, square_T


def _tile(d_in: int) -> int:
    return min(MAX_TILE, int(triton.next_power_of_2(d_in)))
