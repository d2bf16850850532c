"""Owns the fast CPU path: a low-precision product screens, then a compiled pass decides exactly.

The product of a block of rows with a block of features is made in the precision that is fastest here and
serves only to find candidates; `cpu_screens` proves that none is missed. Candidates are computed again from
the unrounded inputs, summed in float64 and rounded once to float32: support and values do not depend on the
precision, the blocking or the thread count. A block is scanned while it is still in the cache, and memory
does not grow with the dictionary.

Legend of shapes: T tokens of a block, C candidates, M and N non-zeros, D d_model, F features, f features of
one block, B blocks of features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.kernels.cpu_parts import as_array, part_edges
from ft_audit.kernels.cpu_precision import fastest_matmul_dtype
from ft_audit.kernels.jumprelu.cpu_kernels import SPARE, TOO_SMALL, join_blocks, rescore, scan
from ft_audit.kernels.jumprelu.cpu_screens import (
    FloatScreen,
    Int8Screen,
    Screen,
    int8_is_exact,
    int8_may_pay,
)
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

FEATURES_A_BLOCK = 2048  # with 1,024 rows, a block of screened values takes 4 to 8 MB
FIRST_CANDIDATES_PER_ROW = 64
# Eight bits bring more candidates: from this size on they may pay, and one block of rows is enough to see.
MIN_RACE_ROWS, MIN_RACE_WIDTH, RACE_ROUNDS = 512, 8192, 2


class NotFiniteError(ArithmeticError):
    """A row of a block holds NaN or infinite activations; who knows the whole input says which."""


class CpuEncoder:
    """Weights in both layouts, bounds, and buffers for blocks of up to `max_rows` rows.

    `screening` is the precision of the product: int8, bfloat16 or float32. Left out, the fastest: the first
    large block of rows is then encoded in each that may be, which decides; the result is the same in all.
    """

    def __init__(self, weights: JumpReluWeights, max_rows: int, screening: torch.dtype | None = None) -> None:
        assert weights.topk is None and weights.input_norm == "none", "Encoder sees to both"
        self.weights = weights
        self.max_rows = max_rows
        width = weights.num_features
        self.edges = [*range(0, width, FEATURES_A_BLOCK), width]
        self._exact_FD = weights.w_enc_DF.t().contiguous()
        self.exact_FD = as_array(self._exact_FD)
        self.bias_F = weights.b_enc_F.double().numpy()
        # relu: below zero nothing fires, whatever the threshold.
        self.cut_F = weights.threshold_F.clamp_min(0.0).numpy()
        assert screening != torch.int8 or int8_is_exact(), "products in eight bits may saturate here"
        self.screening = screening or fastest_matmul_dtype()
        self._screen: Screen | None = None
        if self.screening != torch.int8:
            self._screen = FloatScreen(weights, self._exact_FD, self.edges, self.screening)
        self._may_race = screening is None and width >= MIN_RACE_WIDTH and int8_may_pay()
        self._buffers: dict[torch.dtype, Tensor] = {}
        self._parts: list[_Part] = []

    def encode(self, x_TD: Tensor) -> SparseRows:
        """The exact sparse rows of one block; raises NotFiniteError on NaN or infinite activations."""
        assert x_TD.shape[0] <= self.max_rows
        # Every torch operation here is a barrier between threads, so bfloat16 goes through as it is.
        if self.weights.b_dec_D is not None:
            x_TD = x_TD.float() - self.weights.b_dec_D
        elif x_TD.dtype not in (torch.float32, torch.bfloat16):
            x_TD = x_TD.float()
        x_TD = x_TD.contiguous()
        if self._screen is None:
            self._screen = self._int8_screen(x_TD)
        if self._may_race and x_TD.shape[0] >= MIN_RACE_ROWS:
            self._race(x_TD)
        return self._encode(x_TD, self._screen)

    def screened(self, num_rows: int, block: int = 0) -> Tensor:
        """The buffer that a product of `num_rows` rows with one block of features is written to [T, f]."""
        assert self._screen is not None
        dtype, width = self._screen.out_dtype, self.edges[block + 1] - self.edges[block]
        if dtype not in self._buffers:
            widest = min(FEATURES_A_BLOCK, self.weights.num_features)
            self._buffers[dtype] = torch.empty(self.max_rows * widest, dtype=dtype)
        return self._buffers[dtype][: num_rows * width].view(num_rows, width)

    def _int8_screen(self, x_TD: Tensor) -> Int8Screen:
        centre_D = x_TD.float().mean(dim=0).nan_to_num(0.0, 0.0, 0.0)
        if x_TD.shape[0] == 0:
            centre_D = torch.zeros(self.weights.d_in)
        return Int8Screen(self.weights, self._exact_FD, self.edges, centre_D)

    def _race(self, x_TD: Tensor) -> None:
        """Keep the faster of both screens for these rows; both give the same bits."""
        assert self._screen is not None
        self._may_race = False
        screens: list[Screen] = [self._screen, self._int8_screen(x_TD)]
        best = [float("inf")] * len(screens)
        for _ in range(RACE_ROUNDS):
            for i, screen in enumerate(screens):
                self._screen = screen
                started = time.perf_counter()
                self._encode(x_TD, screen)
                best[i] = min(best[i], time.perf_counter() - started)
        self._screen = screens[int(np.argmin(best))]
        self.screening = self._screen.dtype
        self._buffers = {k: v for k, v in self._buffers.items() if k == self._screen.out_dtype}

    def _encode(self, x_TD: Tensor, screen: Screen) -> SparseRows:
        num_rows = x_TD.shape[0]
        edges = part_edges(num_rows)
        num_parts = len(edges) - 1
        while len(self._parts) < num_parts:
            self._parts.append(_Part(self))
        parts = self._parts[:num_parts]
        operand_TD = screen.operand(x_TD)
        x, operand = as_array(x_TD), as_array(operand_TD)
        for part, (start, stop) in zip(parts, pairwise(edges), strict=True):
            part.begin(x[start:stop], operand[start:stop], start)
        with ThreadPoolExecutor(num_parts) as pool:

            def each(work: Callable[[_Part], None]) -> None:
                if num_parts == 1:
                    work(parts[0])
                else:
                    list(pool.map(work, parts))

            each(lambda part: part.measure(screen))
            for block in range(len(self.edges) - 1):
                screened_Tf = self.screened(num_rows, block)
                screen.multiply(operand_TD, block, screened_Tf)
                values = as_array(screened_Tf)
                each(lambda part: part.decide(values, screen.bounds[block], block))  # noqa: B023
            return self._join(parts, each)

    def _join(self, parts: list[_Part], each: Callable[[Callable[[_Part], None]], None]) -> SparseRows:
        counts_T = np.concatenate([part.counts() for part in parts])
        indptr_T1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts_T)])
        index_N = np.empty(indptr_T1[-1], dtype=np.int32)
        value_N = np.empty(indptr_T1[-1], dtype=np.uint16)
        each(lambda part: part.write(indptr_T1, index_N, value_N))
        return SparseRows(
            torch.from_numpy(indptr_T1),
            torch.from_numpy(index_N),
            torch.from_numpy(value_N.view(np.int16)).view(torch.bfloat16),
            self.weights.num_features,
        )


class _Part:
    """Some rows of a block, which one thread decides, and that thread's buffers."""

    def __init__(self, encoder: CpuEncoder) -> None:
        self.encoder = encoder
        self.candidate_C = np.empty(0, dtype=np.int32)
        self.index_M = np.empty(0, dtype=np.int32)
        self.value_M = np.empty(0, dtype=np.uint16)

    def begin(self, x_TD: NDArray[np.generic], operand_TD: NDArray[np.generic], first_row: int) -> None:
        num_rows, num_blocks = len(x_TD), len(self.encoder.edges) - 1
        self.x_TD, self.operand_TD, self.first_row = x_TD, operand_TD, first_row
        self.factor_T3 = np.empty((num_rows, 3), dtype=np.float32)
        self.starts_BT = np.empty((num_blocks, num_rows), dtype=np.int64)
        self.ends_BT = np.empty((num_blocks, num_rows), dtype=np.int64)
        self.filled = 0

    def measure(self, screen: Screen) -> None:
        if not screen.measure(self.x_TD, self.operand_TD, self.factor_T3):
            raise NotFiniteError

    def decide(self, screened_Tf: NDArray[np.generic], bounds_3f: NDArray[np.float32], block: int) -> None:
        """Find this block's candidates in the rows of this part and keep those that fire."""
        num_rows, encoder = len(self.x_TD), self.encoder
        start, stop = encoder.edges[block], encoder.edges[block + 1]
        rows_Tf = screened_Tf[self.first_row : self.first_row + num_rows]
        ends_T = self.ends_BT[block]
        while (found := int(scan(rows_Tf, bounds_3f, self.factor_T3, self.candidate_C, ends_T))) == TOO_SMALL:
            first = num_rows * min(FIRST_CANDIDATES_PER_ROW, stop - start) + SPARE
            self.candidate_C = np.empty(max(2 * self.candidate_C.size, first), dtype=np.int32)
        if self.filled + found > self.index_M.size:
            size = max(2 * self.index_M.size, self.filled + found)
            self.index_M = np.concatenate(
                [self.index_M[: self.filled], np.empty(size - self.filled, np.int32)]
            )
            self.value_M = np.concatenate(
                [self.value_M[: self.filled], np.empty(size - self.filled, np.uint16)]
            )
        kept = rescore(
            self.x_TD,
            encoder.exact_FD[start:stop],
            encoder.bias_F[start:stop],
            encoder.cut_F[start:stop],
            start,
            self.candidate_C,
            ends_T,
            self.index_M[self.filled :],
            self.value_M[self.filled :],
        )
        ends_T += self.filled
        self.starts_BT[block, :1] = self.filled
        self.starts_BT[block, 1:] = ends_T[:-1]
        self.filled += int(kept)

    def counts(self) -> NDArray[np.int64]:
        """How many features fire on each row."""
        counts_T: NDArray[np.int64] = (self.ends_BT - self.starts_BT).sum(axis=0)
        return counts_T

    def write(
        self, indptr_T1: NDArray[np.int64], index_N: NDArray[np.int32], value_N: NDArray[np.uint16]
    ) -> None:
        """Copy the rows of this part to their places in the whole."""
        start, stop = indptr_T1[self.first_row], indptr_T1[self.first_row + len(self.x_TD)]
        join_blocks(
            self.starts_BT,
            self.ends_BT,
            self.index_M,
            self.value_M,
            index_N[start:stop],
            value_N[start:stop],
        )
