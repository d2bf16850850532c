"""Every encoder against the plain float32 formula."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ft_audit.kernels.jumprelu import (
    Encoder,
    JumpReluWeights,
    encode_naive,
)
from ft_audit.kernels.jumprelu.cpu import CpuEncoder
from ft_audit.kernels.jumprelu.cpu_screens import int8_is_exact
from ft_audit.kernels.jumprelu.triton_plans import FusedPlan, MatmulPlan, Plan
from ft_audit.kernels.sparse_rows import SparseRows

Encode = Callable[[Tensor, JumpReluWeights], SparseRows]
# Natively where there is a GPU; else tiles are large, since each operation costs the interpreter the same.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TILES = FusedPlan(64, 64, 32, 4, 2) if DEVICE.type == "cuda" else FusedPlan(256, 256, 128, 4, 1)
EVERYWHERE = 10**6  # programs at work: rows are split as far as they can be


def on_triton(plan: Plan | None = None, capacity: int = 512, at_work: int | None = None) -> Encode:
    def run(x_TD: Tensor, weights: JumpReluWeights) -> SparseRows:
        from ft_audit.kernels.jumprelu.triton_encoder import TritonEncoder

        rows = TritonEncoder(moved(weights), 1000, capacity, plan, at_work).encode(x_TD.to(DEVICE))
        return SparseRows(rows.indptr_T1.cpu(), rows.index_N.cpu(), rows.value_N.cpu(), rows.num_features)

    return run


def moved(weights: JumpReluWeights) -> JumpReluWeights:
    b_dec_D = None if weights.b_dec_D is None else weights.b_dec_D.to(DEVICE)
    w_enc_DF, b_enc_F = weights.w_enc_DF.to(DEVICE), weights.b_enc_F.to(DEVICE)
    return JumpReluWeights(w_enc_DF, b_enc_F, weights.threshold_F.to(DEVICE), b_dec_D)


PATHS: dict[str, Encode] = {
    "naive": encode_naive,
    "cpu": lambda x_TD, weights: Encoder(weights, "cpu").encode(x_TD),
    # Both screening precisions run everywhere: torch multiplies bfloat16 on any processor, only slowly.
    "cpu-bfloat16": lambda x_TD, weights: CpuEncoder(weights, 1024, torch.bfloat16).encode(x_TD),
    "cpu-float32": lambda x_TD, weights: CpuEncoder(weights, 1024, torch.float32).encode(x_TD),
    "cpu-int8": lambda x_TD, weights: CpuEncoder(weights, 1024, torch.int8).encode(x_TD),
    "triton": on_triton(),
    "triton-split": on_triton(TILES, at_work=EVERYWHERE),
    "triton-overflow": on_triton(TILES, capacity=3, at_work=2),
    "triton-matmul": on_triton(MatmulPlan(512, 1024)),
    "triton-matmul-overflow": on_triton(MatmulPlan(300, 700), capacity=3),
}
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> Encode:
    if request.param.startswith("triton"):
        pytest.importorskip("triton")
    if request.param == "cpu-int8" and not int8_is_exact():
        pytest.skip("products in eight bits may saturate here")
    return PATHS[request.param]


def make_weights(
    d_in: int,
    width: int,
    dtype: torch.dtype = FLOAT32,
    *,
    b_dec: bool = False,
    cut: float = 1.6,
    seed: int = 0,
) -> JumpReluWeights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return JumpReluWeights(
        w_enc_DF=(normal(d_in, width) / d_in**0.5).to(dtype),
        b_enc_F=0.1 * normal(width),
        threshold_F=cut + 0.2 * normal(width),
        b_dec_D=0.5 * normal(d_in) if b_dec else None,
    )


def make_inputs(num_rows: int, d_in: int, dtype: torch.dtype = FLOAT32, seed: int = 1) -> Tensor:
    return torch.randn(num_rows, d_in, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(a: SparseRows, b: SparseRows) -> bool:
    return (
        torch.equal(a.indptr_T1, b.indptr_T1)
        and torch.equal(a.index_N, b.index_N)
        and torch.equal(a.value_N.view(torch.int16), b.value_N.view(torch.int16))
        and a.num_features == b.num_features
    )


def check_against_plain(rows: SparseRows, x_TD: Tensor, weights: JumpReluWeights) -> None:
    """Support and values agree with plain float32 JumpReLU outside the band of float32 sums."""
    x_TD, w_enc_DF = x_TD.float(), weights.w_enc_DF.float()
    size_TF = x_TD.abs() @ w_enc_DF.abs() + weights.b_enc_F.abs()
    if weights.b_dec_D is not None:
        # Subtracted from each row or, as b_dec @ w_enc in float64, from the bias: both sizes bound each way.
        size_TF += weights.b_dec_D.abs() @ w_enc_DF.abs()
        x_TD = x_TD - weights.b_dec_D
    pre_TF = x_TD @ w_enc_DF + weights.b_enc_F
    plain_TF = torch.relu(pre_TF) * (pre_TF > weights.threshold_F)
    # A float32 sum of D products and a bias, in any order, is within (D + 2) 2^-24 of the sizes' sum (Higham,
    # section 3.1; one more for x - b_dec, one for the folded bias). Tensor cores cut off instead of rounding,
    # once more for each group of products; three tf32 products for one of float32 lose 3 * 2^-22 of each.
    d_in = x_TD.shape[1]
    plain, ours = (d_in + 3) * 2.0**-24, (d_in + 3) * 2.0**-24
    if DEVICE.type == "cuda":
        ours = (2 * d_in + 16) * 2.0**-23 + 3 * 2.0**-22
    band_TF = 1.01 * (plain + ours) * size_TF
    outside_TF = (pre_TF - weights.threshold_F.clamp_min(0.0)).abs() > band_TF
    got_TF = rows.dense()
    assert torch.equal((got_TF > 0)[outside_TF], (plain_TF > 0)[outside_TF])
    off_TF = (got_TF - plain_TF).abs() - (band_TF + 2.0**-8 * plain_TF)
    assert bool((off_TF[outside_TF & (got_TF > 0)] <= 0).all())
    if outside_TF.numel():
        widest = 1e-3 if DEVICE.type == "cpu" else 1e-2
        # A wide band would prove nothing; a narrow one still holds an entry of some small draws, by chance.
        assert int((~outside_TF).sum()) <= max(2, widest * outside_TF.numel())


def check_layout(rows: SparseRows, num_rows: int) -> None:
    assert rows.num_rows == num_rows
    assert int(rows.indptr_T1[0]) == 0
    assert int(rows.indptr_T1[-1]) == rows.num_nonzeros
    for start, stop in pairwise(rows.indptr_T1.tolist()):
        index_n = rows.index_N[start:stop]
        assert bool((index_n.diff() > 0).all())
    assert (
        not rows.num_nonzeros or 0 <= int(rows.index_N.min()) <= int(rows.index_N.max()) < rows.num_features
    )


@pytest.mark.parametrize(
    ("num_rows", "d_in", "width"),
    [(num_rows, *shape) for num_rows in (0, 1, 2, 63, 1000) for shape in ((1, 1), (7, 63), (96, 1000))]
    + [(2, 577, 2049), (63, 577, 2049)],
)
def test_agrees_with_plain_float32_at_any_size(path: Encode, num_rows: int, d_in: int, width: int) -> None:
    weights = make_weights(d_in, width)
    x_TD = make_inputs(num_rows, d_in)
    rows = path(x_TD, weights)
    check_layout(rows, num_rows)
    check_against_plain(rows, x_TD, weights)


@pytest.mark.parametrize("name", list(PATHS))
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(0, 70),
    d_in=st.integers(1, 70),
    width=st.integers(1, 300),
    dtypes=st.tuples(*2 * [st.sampled_from([FLOAT32, BFLOAT16])]),
    b_dec=st.booleans(),
    cut=st.sampled_from([-1.0, 0.0, 1.6, 4.0]),
)
def test_agrees_with_plain_float32_whatever_is_drawn(
    name: str,
    seed: int,
    num_rows: int,
    d_in: int,
    width: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    b_dec: bool,
    cut: float,
) -> None:
    weights = make_weights(d_in, width, dtypes[0], b_dec=b_dec, cut=cut, seed=seed)
    x_TD = make_inputs(num_rows, d_in, dtypes[1], seed=seed + 1)
    rows = PATHS[name](x_TD, weights)
    check_layout(rows, num_rows)
    check_against_plain(rows, x_TD, weights)


@pytest.mark.parametrize("b_dec", [False, True])
@pytest.mark.parametrize("weight_dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("input_dtype", [FLOAT32, BFLOAT16])
def test_agrees_with_plain_float32_in_every_precision(
    path: Encode, input_dtype: torch.dtype, weight_dtype: torch.dtype, b_dec: bool
) -> None:
    weights = make_weights(200, 1500, weight_dtype, b_dec=b_dec)
    x_TD = make_inputs(100, 200, input_dtype)
    rows = path(x_TD, weights)
    assert rows.num_nonzeros > 1000
    check_against_plain(rows, x_TD, weights)


def test_agrees_with_plain_float32_beside_massive_activations(path: Encode) -> None:
    weights = make_weights(128, 1000, BFLOAT16, cut=3.0)
    x_TD = make_inputs(100, 128)
    x_TD[:, 5] *= 100.0
    x_TD[0, 17] = 25_000.0
    check_against_plain(path(x_TD, weights), x_TD, weights)


def test_a_tie_with_the_threshold_does_not_fire(path: Encode) -> None:
    # Small integers: every sum is exact in every precision.
    x_TD = torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
    w_enc_DF = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    pre_TF = x_TD @ w_enc_DF  # [[6, 5, 5], [3, 5, 1]]
    threshold_F = torch.tensor([6.0, 5.0, 1.0])
    rows = path(x_TD, JumpReluWeights(w_enc_DF, torch.zeros(3), threshold_F, None))
    assert pre_TF.eq(threshold_F).sum() == 4
    assert rows.dense().tolist() == [[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    just_below_F = torch.nextafter(threshold_F, torch.zeros(3))
    rows = path(x_TD, JumpReluWeights(w_enc_DF, torch.zeros(3), just_below_F, None))
    assert rows.dense().tolist() == [[6.0, 5.0, 5.0], [0.0, 5.0, 1.0]]


def test_a_difference_that_screening_rounds_away_still_decides(path: Encode) -> None:
    # 1 + 2^-12 rounds to 1 in bfloat16, as input and as weight: only the exact pass sees it.
    near = 1.0 + 2.0**-12
    for x, w in ((near, 1.0), (1.0, near)):
        weights = JumpReluWeights(torch.tensor([[w]]), torch.zeros(1), torch.ones(1), None)
        assert path(torch.tensor([[x]]), weights).num_nonzeros == 1
    weights = JumpReluWeights(torch.tensor([[1.0]]), torch.zeros(1), torch.tensor([near]), None)
    assert path(torch.tensor([[1.0]]), weights).num_nonzeros == 0


def test_nothing_fires_above_every_activation(path: Encode) -> None:
    rows = path(make_inputs(63, 32), make_weights(32, 200, cut=1000.0))
    assert rows.num_nonzeros == 0
    assert rows.indptr_T1.tolist() == [0] * 64


def test_everything_fires_when_all_is_positive(path: Encode) -> None:
    weights = JumpReluWeights(torch.rand(16, 300) + 0.1, torch.zeros(300), torch.full((300,), 0.01), None)
    rows = path(make_inputs(63, 16).abs() + 0.1, weights)
    assert rows.num_nonzeros == 63 * 300
    assert torch.equal(rows.index_N.view(63, 300), torch.arange(300, dtype=torch.int32).expand(63, 300))


def test_below_zero_nothing_fires_whatever_the_threshold(path: Encode) -> None:
    weights = JumpReluWeights(torch.eye(2), torch.zeros(2), torch.full((2,), -5.0), None)
    rows = path(torch.tensor([[-1.0, 1.0], [0.0, -0.0]]), weights)
    assert rows.dense().tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_values_are_rounded_once_to_nearest_even(path: Encode) -> None:
    # Halfway between two bfloat16 values, 2^-8 above an even and an odd one, and just beside.
    x_T = torch.tensor([1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, 1.0 + 2.0**-8 + 2.0**-20])
    weights = JumpReluWeights(torch.ones(1, 1), torch.zeros(1), torch.zeros(1), None)
    rows = path(x_T[:, None], weights)
    assert torch.equal(rows.value_N, x_T.bfloat16())
    assert rows.value_N.tolist() == [1.0, 1.0 + 2 * 2.0**-7, 1.0 + 2.0**-7]
