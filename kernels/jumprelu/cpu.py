"""Owns the fast CPU path: a low-precision product screens, then a compiled pass decides exactly.

The dense product of a block is made in bfloat16 where the processor multiplies it, else in float32, and
serves only to find candidates. With `x^` and `w^` the inputs rounded to the precision of the product, any
order of summation obeys (Cauchy-Schwarz, and Higham 2002, section 3.1)

    |x.w - fl(x^.w^)| <= |x - x^| |w| + |x^| |w - w^| + g |x^| |w^|,    g = (D + 2) 2^-23

and storing it as bfloat16 adds at most 2^-8 of the value. A feature outside that band below its threshold
cannot fire. All others are computed again from the unrounded inputs, summed in float64 and rounded once to
float32: support and values do not depend on the precision, the blocking or the thread count.

Legend of shapes: T tokens of a block, C candidates, N non-zeros, D d_model, F features.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.kernels.cpu_precision import fastest_matmul_dtype
from ft_audit.kernels.jumprelu.cpu_kernels import NOT_FINITE, SPARE, TOO_SMALL, rescore, scan
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

# Rounding of the bounds themselves and of their use in float32 stays far below this share.
SLOPE = 1.0 + 2.0**-16
FIRST_CANDIDATES_PER_ROW = 256
FEATURES_A_STEP = 8192
MIN_ROWS_A_PART = 16  # below that a thread costs more than it saves


class NotFiniteError(ArithmeticError):
    """A row of a block holds NaN or infinite activations; who knows the whole input says which."""


class _Block(NamedTuple):
    """What the compiled passes read of some rows."""

    screen_TF: NDArray[np.generic]
    x_TD: NDArray[np.generic]
    coarse_TD: NDArray[np.generic]

    def rows(self, start: int, stop: int) -> _Block:
        return _Block(self.screen_TF[start:stop], self.x_TD[start:stop], self.coarse_TD[start:stop])


class _Rows(NamedTuple):
    """The exact rows of some rows of a block."""

    ends_T: NDArray[np.int64]
    index_N: NDArray[np.int32]
    value_N: NDArray[np.uint16]


class CpuEncoder:
    """Weights in both layouts, bounds, and buffers for blocks of up to `max_rows` rows."""

    def __init__(self, weights: JumpReluWeights, max_rows: int, screening: torch.dtype | None = None) -> None:
        self.weights = weights
        self.screening = screening or fastest_matmul_dtype()
        w_enc_DF = weights.w_enc_DF
        self.coarse_DF = w_enc_DF.to(self.screening).contiguous()
        self.screen_TF = torch.empty(max_rows, weights.num_features, dtype=self.screening)
        self.exact_FD = _array(w_enc_DF.t().contiguous())
        self.bias_F = weights.b_enc_F.double().numpy()
        # relu: below zero nothing fires, whatever the threshold.
        cut_F = weights.threshold_F.clamp_min(0.0)
        self.cut_F = cut_F.numpy()
        self.bounds = _bounds(w_enc_DF, self.coarse_DF, cut_F.double() - weights.b_enc_F.double())
        self._candidates: list[NDArray[np.int32]] = []

    def encode(self, x_TD: Tensor) -> SparseRows:
        """The exact sparse rows of one block; raises NotFiniteError on NaN or infinite activations."""
        num_rows = x_TD.shape[0]
        assert num_rows <= self.screen_TF.shape[0]
        # Every torch operation here is a barrier between threads, so bfloat16 goes through as it is.
        if self.weights.b_dec_D is not None:
            x_TD = x_TD.float() - self.weights.b_dec_D
        elif x_TD.dtype not in (torch.float32, torch.bfloat16):
            x_TD = x_TD.float()
        x_TD = x_TD.contiguous()
        coarse_TD = x_TD.to(self.screening)
        screen_TF = self.screen_TF[:num_rows]
        torch.mm(coarse_TD, self.coarse_DF, out=screen_TF)
        block = _Block(_array(screen_TF), _array(x_TD), _array(coarse_TD))

        num_parts = max(1, min(torch.get_num_threads(), num_rows // MIN_ROWS_A_PART))
        edges = [num_rows * part // num_parts for part in range(num_parts + 1)]
        while len(self._candidates) < num_parts:
            self._candidates.append(np.empty(0, dtype=np.int32))
        if num_parts == 1:
            return self._join([self._part(0, block)])
        blocks = [block.rows(start, stop) for start, stop in pairwise(edges)]
        with ThreadPoolExecutor(num_parts) as pool:
            return self._join(list(pool.map(self._part, range(num_parts), blocks)))

    def _part(self, part: int, block: _Block) -> _Rows:
        """The exact rows of one part; `part` owns its candidate buffer."""
        num_rows, width = block.screen_TF.shape
        ends_T = np.empty(num_rows, dtype=np.int64)
        found = TOO_SMALL
        while found == TOO_SMALL:
            candidate_C = self._candidates[part]
            found = int(scan(*block, self.bounds, candidate_C, ends_T))
            if found == NOT_FINITE:
                raise NotFiniteError
            if found == TOO_SMALL:
                first = num_rows * min(FIRST_CANDIDATES_PER_ROW, width) + SPARE
                self._candidates[part] = np.empty(max(2 * candidate_C.size, first), dtype=np.int32)
        index_N = np.empty(found, dtype=np.int32)
        value_N = np.empty(found, dtype=np.uint16)
        kept = rescore(
            block.x_TD, self.exact_FD, self.bias_F, self.cut_F, candidate_C, ends_T, index_N, value_N
        )
        return _Rows(ends_T, index_N[:kept], value_N[:kept])

    def _join(self, parts: list[_Rows]) -> SparseRows:
        counts_T = np.concatenate([np.diff(part.ends_T, prepend=0) for part in parts])
        indptr_T1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts_T)])
        index_N = np.concatenate([part.index_N for part in parts])
        value_N = np.concatenate([part.value_N for part in parts])
        return SparseRows(
            torch.from_numpy(indptr_T1),
            torch.from_numpy(index_N),
            torch.from_numpy(value_N.view(np.int16)).view(torch.bfloat16),
            self.weights.num_features,
        )


def _bounds(w_enc_DF: Tensor, coarse_DF: Tensor, cut_F: Tensor) -> NDArray[np.float32]:
    """[3, F]: a screened value below `lowest - |x^| * by_norm - |x - x^| * by_rounding` cannot fire."""
    stored = 2.0**-8 if coarse_DF.dtype == torch.bfloat16 else 0.0
    summed = (w_enc_DF.shape[0] + 2) * 2.0**-23
    bounds_3F = torch.empty(3, cut_F.shape[0])
    for start in range(0, cut_F.shape[0], FEATURES_A_STEP):  # float64 copies of a wide encoder are large
        part = slice(start, start + FEATURES_A_STEP)
        exact_Df, rounded_Df, cut_f = w_enc_DF[:, part].double(), coarse_DF[:, part].double(), cut_F[part]
        by_norm_f = (exact_Df - rounded_Df).norm(dim=0) + summed * rounded_Df.norm(dim=0)
        bounds_3F[0, part] = cut_f - (stored + 2.0**-20) * cut_f.abs() - 1e-30
        bounds_3F[1, part] = (1 + stored) * SLOPE * by_norm_f
        bounds_3F[2, part] = (1 + stored) * SLOPE * exact_Df.norm(dim=0)
    return bounds_3F.numpy()


def _array(tensor: Tensor) -> NDArray[np.generic]:
    """The tensor's memory as NumPy sees it; bfloat16 as its bits, uint16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[np.generic] = tensor.numpy()
    return array
