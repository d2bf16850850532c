"""Owns decoding on the CPU: one compiled pass over the rows, which threads share.

Legend of shapes: T tokens, N non-zeros, D d_model, F features.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.kernels.cpu_parts import as_array, part_edges
from ft_audit.kernels.jumprelu.cpu_kernels import REORDER, widen
from ft_audit.kernels.sparse_rows import SparseRows


class _Operands(NamedTuple):
    """What both compiled passes read; a named tuple, because compiled functions take one whole."""

    indptr_T1: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.uint16]  # the bits of bfloat16
    w_dec_FD: NDArray[np.generic]  # float32, or the bits of bfloat16
    b_dec_D: NDArray[np.float32]


def decode(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> Tensor:
    """`activations @ w_dec + b_dec` as float32 [T, D]; a row's features are added in ascending order."""
    decoded_TD = torch.empty(rows.num_rows, w_dec_FD.shape[1])
    operands = _operands(rows, w_dec_FD, b_dec_D)
    _in_parts(rows.num_rows, lambda start, stop: _decode(start, stop, operands, decoded_TD.numpy()))
    return decoded_TD


def squared_errors(
    rows: SparseRows, x_TD: Tensor, w_dec_FD: Tensor, b_dec_D: Tensor | None
) -> tuple[Tensor, Tensor]:
    """|x - decoded|^2 and |x|^2 of every row, float32 [T] each."""
    error_T, square_T = torch.empty(rows.num_rows), torch.empty(rows.num_rows)
    operands = _operands(rows, w_dec_FD, b_dec_D)
    x, error, square = as_array(x_TD), error_T.numpy(), square_T.numpy()
    _in_parts(rows.num_rows, lambda start, stop: _squared_errors(start, stop, operands, x, error, square))
    return error_T, square_T


def _operands(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> _Operands:
    # Compiled code reads wherever it is pointed to.
    assert int(rows.indptr_T1[0]) == 0 and int(rows.indptr_T1[-1]) == rows.num_nonzeros
    assert bool((rows.indptr_T1.diff() >= 0).all()), "row pointers descend"
    if rows.num_nonzeros:
        lowest, highest = rows.index_N.aminmax()
        assert int(lowest) >= 0 and int(highest) < rows.num_features, (lowest, highest)
    return _Operands(
        rows.indptr_T1.numpy(),
        rows.index_N.numpy(),
        as_array(rows.value_N),
        as_array(w_dec_FD),
        np.zeros(w_dec_FD.shape[1], dtype=np.float32) if b_dec_D is None else b_dec_D.numpy(),
    )


def _in_parts(num_rows: int, work: Callable[[int, int], None]) -> None:
    """Do the rows [start, stop) of as many parts as there are threads, side by side."""
    edges = part_edges(num_rows)
    if len(edges) == 2:
        work(0, num_rows)
        return
    with ThreadPoolExecutor(len(edges) - 1) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


# Contraction alone: features are added in their order, each product and sum rounded as one.
@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_features(operands: _Operands, t: int, sum_D: NDArray[np.float32]) -> None:
    """Four features a pass: the sum is read and written a quarter as often, and four rows are under way."""
    index_N, value_N, w_dec_FD = operands.index_N, operands.value_N, operands.w_dec_FD
    n, stop = operands.indptr_T1[t], operands.indptr_T1[t + 1]
    while n + 4 <= stop:
        w0_D, w1_D = w_dec_FD[index_N[n]], w_dec_FD[index_N[n + 1]]
        w2_D, w3_D = w_dec_FD[index_N[n + 2]], w_dec_FD[index_N[n + 3]]
        v0, v1 = widen(value_N[n]), widen(value_N[n + 1])
        v2, v3 = widen(value_N[n + 2]), widen(value_N[n + 3])
        for d in range(len(sum_D)):
            two = (sum_D[d] + v0 * widen(w0_D[d])) + v1 * widen(w1_D[d])
            sum_D[d] = (two + v2 * widen(w2_D[d])) + v3 * widen(w3_D[d])
        n += 4
    while n < stop:
        w_D, v = w_dec_FD[index_N[n]], widen(value_N[n])
        for d in range(len(sum_D)):
            sum_D[d] += v * widen(w_D[d])
        n += 1


@njit(cache=True, nogil=True)
def _decode(
    first: int,
    last: int,
    operands: _Operands,
    decoded_TD: NDArray[np.float32],
) -> None:
    for t in range(first, last):
        sum_D = decoded_TD[t]
        sum_D[:] = 0.0
        _add_features(operands, t, sum_D)
        sum_D += operands.b_dec_D


@njit(cache=True, nogil=True, fastmath=REORDER)
def _distances(x_D: NDArray[np.generic], decoded_D: NDArray[np.float32]) -> tuple[float, float]:
    error, square = 0.0, 0.0
    for d in range(len(decoded_D)):
        x = np.float64(widen(x_D[d]))
        off = x - np.float64(decoded_D[d])
        error += off * off
        square += x * x
    return error, square


@njit(cache=True, nogil=True)
def _squared_errors(
    first: int,
    last: int,
    operands: _Operands,
    x_TD: NDArray[np.generic],
    error_T: NDArray[np.float32],
    square_T: NDArray[np.float32],
) -> None:
    sum_D = np.empty(len(operands.b_dec_D), dtype=np.float32)
    for t in range(first, last):
        sum_D[:] = 0.0
        _add_features(operands, t, sum_D)
        sum_D += operands.b_dec_D
        error_T[t], square_T[t] = _distances(x_TD[t], sum_D)
