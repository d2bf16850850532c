"""Owns the check before any timing: sampled rows of a result against the formula in float64.

A path of ours sums products of float32 in some order, on some unit that rounds or truncates each step. With
u = 2^-23, any such sum of D products and a bias is off by at most

    band = (D + 2) u (|x| @ |w| + |b|)        (Higham 2002, section 3.1; truncation doubles its 2^-24)

so outside `band` of the threshold the support is decided, and a kept value is off by at most `band` and its
rounding to bfloat16, 2^-8 of itself.

Shapes: T tokens, R sampled rows, N entries, D width of the residual stream, F features, f some of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.case import FEATURES_A_STEP, Case
from ft_audit.benchmarks.encoding.way import Entries, Result, Way
from ft_audit.kernels.sparse_rows import SparseRows

SAMPLED_ENTRIES = 1 << 23
MOST_SAMPLED_ROWS = 256


class WrongResultError(AssertionError):
    """A path of ours gave what the formula does not; nothing of it is timed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The formula in float64 on some rows, and how far a float32 path may be from it."""

    row_R: Tensor
    pre_RF: Tensor
    band_RF: Tensor
    cut_F: Tensor

    @property
    def fires_RF(self) -> Tensor:
        return self.pre_RF > self.cut_F

    @property
    def l0(self) -> float:
        return float(self.fires_RF.sum()) / len(self.row_R)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a result compares with float64; `undecided` counts the features a token inside the band."""

    flips_per_token: float
    largest_value_error: float  # relative, over the features that both keep
    undecided_per_token: float


def make_reference(case: Case, seed: int = 0) -> Reference:
    """The float64 pre-activations and bands of as many random rows as fit."""
    weights = case.weights
    num_sampled = min(case.num_rows, MOST_SAMPLED_ROWS, max(1, SAMPLED_ENTRIES // weights.num_features))
    order_T = torch.randperm(case.num_rows, generator=torch.Generator().manual_seed(seed))
    row_R = order_T[:num_sampled].sort().values.to(case.x_TD.device)
    x_RD = case.x_TD[row_R].float()
    if weights.b_dec_D is not None:
        x_RD = x_RD - weights.b_dec_D  # in float32, as the contract has it
    x_RD = x_RD.double()
    shape = (num_sampled, weights.num_features)
    pre_RF, band_RF = (torch.empty(shape, dtype=torch.float64, device=x_RD.device) for _ in range(2))
    unit = (weights.d_in + 2) * 2.0**-23
    for start in range(0, weights.num_features, FEATURES_A_STEP):
        part = slice(start, start + FEATURES_A_STEP)
        w_Df, b_f = weights.w_enc_DF[:, part].double(), weights.b_enc_F[part].double()
        pre_RF[:, part] = x_RD @ w_Df + b_f
        band_RF[:, part] = unit * (x_RD.abs() @ w_Df.abs() + b_f.abs())
    return Reference(row_R, pre_RF, band_RF, weights.threshold_F.double().clamp_min(0.0))


def compare(way: Way, result: Result, reference: Reference, num_rows: int) -> Accuracy:
    """How `result` differs from the reference on its rows; raises WrongResultError for a path of ours.

    A TopK path is compared with the k largest positive pre-activations in float64.
    """
    assert way.read is not None
    if isinstance(result, SparseRows):
        _check_layout(way, result, num_rows)
    got_RF, value_RF = _sampled(way.read(result), reference, num_rows)
    fires_RF = reference.fires_RF if way.top_k is None else _largest(reference.pre_RF, way.top_k)
    flipped_RF = got_RF != fires_RF
    error_RF = (value_RF - reference.pre_RF).abs()
    undecided_RF = (reference.pre_RF - reference.cut_F).abs() <= reference.band_RF
    if way.kind == "ours":
        _refuse(way, "support", flipped_RF & ~undecided_RF, reference)
        allowed_RF = reference.band_RF + 2.0**-8 * reference.pre_RF.abs()
        _refuse(way, "value", got_RF & (error_RF > allowed_RF), reference)
    both_RF = got_RF & fires_RF
    relative_N = error_RF[both_RF] / reference.pre_RF[both_RF].abs()
    return Accuracy(
        flips_per_token=float(flipped_RF.sum()) / len(flipped_RF),
        largest_value_error=float(relative_N.max()) if relative_N.numel() else 0.0,
        undecided_per_token=float(undecided_RF.sum()) / len(undecided_RF),
    )


def check_repeats(way: Way, first: Result, second: Result) -> None:
    """Raise WrongResultError unless two runs of a path of ours gave the same bits."""
    assert isinstance(first, SparseRows) and isinstance(second, SparseRows)
    same = (
        torch.equal(first.indptr_T1, second.indptr_T1)
        and torch.equal(first.index_N, second.index_N)
        and torch.equal(first.value_N.view(torch.int16), second.value_N.view(torch.int16))
    )
    if not same:
        raise WrongResultError(f"{way.name}: two runs over the same activations differ")


def _check_layout(way: Way, rows: SparseRows, num_rows: int) -> None:
    indptr_T1, index_N = rows.indptr_T1, rows.index_N
    sound = (
        rows.num_rows == num_rows
        and int(indptr_T1[0]) == 0
        and int(indptr_T1[-1]) == rows.num_nonzeros
        and bool((indptr_T1.diff() >= 0).all())
    )
    if sound and rows.num_nonzeros:
        first_N = torch.zeros_like(index_N, dtype=torch.bool)
        starts = indptr_T1[:-1]
        first_N[starts[starts < rows.num_nonzeros]] = True
        ascends = first_N[1:] | (index_N.diff() > 0)
        inside = int(index_N.min()) >= 0 and int(index_N.max()) < rows.num_features
        sound = inside and bool(ascends.all())
    if not sound:
        raise WrongResultError(f"{way.name}: its rows are malformed, or not {num_rows} of them")


def _sampled(entries: Entries, reference: Reference, num_rows: int) -> tuple[Tensor, Tensor]:
    """What the result keeps on the sampled rows, and its values, both [R, F]."""
    device = reference.pre_RF.device
    row_N, index_N, value_N = (tensor.to(device) for tensor in entries)
    place_T = torch.full((num_rows,), -1, device=device)
    place_T[reference.row_R] = torch.arange(len(reference.row_R), device=device)
    place_N = place_T[row_N]
    chosen_N = place_N >= 0
    where = (place_N[chosen_N], index_N[chosen_N])
    value_RF = torch.zeros_like(reference.pre_RF)
    value_RF[where] = value_N[chosen_N].double()
    got_RF = torch.zeros_like(reference.pre_RF, dtype=torch.bool)
    got_RF[where] = True
    return got_RF, value_RF


def _largest(pre_RF: Tensor, k: int) -> Tensor:
    keep_RF = torch.zeros_like(pre_RF, dtype=torch.bool)
    return keep_RF.scatter_(1, pre_RF.topk(k, dim=1).indices, True)


def _refuse(way: Way, what: str, wrong_RF: Tensor, reference: Reference) -> None:
    if not bool(wrong_RF.any()):
        return
    r, f = (int(i) for i in wrong_RF.nonzero()[0])
    pre, cut = float(reference.pre_RF[r, f]), float(reference.cut_F[f])
    raise WrongResultError(
        f"{way.name}: wrong {what} of {int(wrong_RF.sum())} entries on {len(wrong_RF)} rows; the first at "
        f"row {int(reference.row_R[r])}, feature {f}: pre-activation {pre:.6g}, threshold {cut:.6g}"
    )
