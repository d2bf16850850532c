"""Owns decoding in plain PyTorch: the ground truth of the other paths.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from torch import Tensor
from torch.nn import functional

from ft_audit.kernels.sparse_rows import SparseRows


def decode(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> Tensor:
    """`activations @ w_dec + b_dec` as float32 [T, D]."""
    if rows.num_rows == 0:  # embedding_bag wants a first bag
        return w_dec_FD.new_zeros((0, w_dec_FD.shape[1])).float()
    x_TD = functional.embedding_bag(
        rows.index_N.long(),
        w_dec_FD.float(),
        rows.indptr_T1,
        mode="sum",
        per_sample_weights=rows.value_N.float(),
        include_last_offset=True,
    )
    return x_TD if b_dec_D is None else x_TD + b_dec_D


def squared_errors(
    rows: SparseRows, x_TD: Tensor, w_dec_FD: Tensor, b_dec_D: Tensor | None
) -> tuple[Tensor, Tensor]:
    """|x - decoded|^2 and |x|^2 of every row, float32 [T] each."""
    exact_TD = x_TD.double()
    error_TD = exact_TD - decode(rows, w_dec_FD, b_dec_D).double()
    return error_TD.square().sum(1).float(), exact_TD.square().sum(1).float()
