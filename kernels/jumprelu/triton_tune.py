"""Owns the measurement behind the table of plans: every candidate on the present device, checked, then timed.

Legend of shapes: T tokens, D d_model, F features.
"""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ft_audit.kernels.jumprelu.naive import pre_activations
from ft_audit.kernels.jumprelu.triton_encoder import TritonEncoder
from ft_audit.kernels.jumprelu.triton_plans import CANDIDATES, Plan, Row
from ft_audit.kernels.jumprelu.weights import JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

CHECKED_ROWS = 128
REPEATS = 7


class Tried(NamedTuple):
    """One candidate: the row it would be in the table, and its rate or why it has none."""

    row: Row
    tokens_per_second: float | None
    problem: str | None


def tune(
    weights: JumpReluWeights,
    x_TD: Tensor,
    capacity: int = 512,
    candidates: tuple[Plan, ...] = CANDIDATES,
    repeats: int = REPEATS,
) -> list[Tried]:
    """Every candidate on these inputs, the fastest first, then those that cannot run here.

    Give as many rows as a real batch has: the best plan for few rows is another one.
    """
    tried = [_try(weights, x_TD, capacity, plan, repeats) for plan in candidates]
    return sorted(tried, key=lambda each: -(each.tokens_per_second or 0.0))


def _try(weights: JumpReluWeights, x_TD: Tensor, capacity: int, plan: Plan, repeats: int) -> Tried:
    capability = torch.cuda.get_device_capability(x_TD.device) if x_TD.is_cuda else (0, 0)
    in_bfloat16 = x_TD.dtype == weights.w_enc_DF.dtype == torch.bfloat16
    dtype = "bfloat16" if in_bfloat16 else "float32"
    row = Row(capability, dtype, weights.d_in, weights.num_features, plan, measured=True)
    encoder = TritonEncoder(weights, max_rows=x_TD.shape[0], capacity=capacity, plan=plan)
    try:
        rows = encoder.encode(x_TD)
    except OutOfResources as error:
        return Tried(row, None, str(error))
    assert num_wrong(rows, x_TD[:CHECKED_ROWS], weights) == 0, f"{plan} computes something else"
    seconds = median(_seconds(encoder, x_TD) for _ in range(repeats))
    return Tried(row, x_TD.shape[0] / seconds, None)


def _seconds(encoder: TritonEncoder, x_TD: Tensor) -> float:
    _wait(x_TD)
    start = time.perf_counter()
    encoder.encode(x_TD)
    _wait(x_TD)
    return time.perf_counter() - start


def _wait(x_TD: Tensor) -> None:
    if x_TD.is_cuda:
        torch.cuda.synchronize(x_TD.device)


def num_wrong(rows: SparseRows, x_TD: Tensor, weights: JumpReluWeights) -> int:
    """How many features of the first rows fire, or stay silent, against float64 beyond rounding.

    Tensor cores cut off the sums of groups of products, each within 2^-23 of what was added up so far.
    """
    num_rows, d_in = x_TD.shape
    pre_TF = pre_activations(x_TD, weights, torch.float64)
    size_TF = x_TD.double().abs() @ weights.w_enc_DF.double().abs() + weights.b_enc_F.abs()
    if weights.b_dec_D is not None:
        size_TF += weights.b_dec_D.double().abs() @ weights.w_enc_DF.double().abs()
    over_TF = pre_TF - weights.threshold_F.clamp_min(0.0)
    sure_TF = over_TF.abs() > (2 * d_in + 32) * 2.0**-23 * size_TF
    stop = int(rows.indptr_T1[num_rows])
    first = SparseRows(
        rows.indptr_T1[: num_rows + 1], rows.index_N[:stop], rows.value_N[:stop], rows.num_features
    )
    return int(((first.dense() > 0) != (over_TF > 0))[sure_TF].sum())
