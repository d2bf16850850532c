"""Encoding where only the k largest features of a row may fire, and rows that are normalised first."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ft_audit.errors import ModelError
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights, encode_naive
from ft_audit.kernels.jumprelu import topk as topk_module
from ft_audit.kernels.jumprelu.input_norm import InputNorm
from ft_audit.kernels.sparse_rows import SparseRows


def make_weights(
    d_in: int, width: int, topk: int | None, dtype: torch.dtype = torch.float32
) -> JumpReluWeights:
    """Whole numbers, so that every sum is exact and many pre-activations of a row are equal."""
    generator = torch.Generator().manual_seed(width)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).float()

    return JumpReluWeights(whole(d_in, width).to(dtype), whole(width), torch.zeros(width), whole(d_in), topk)


def make_inputs(num_rows: int, d_in: int) -> Tensor:
    return torch.randint(-2, 3, (num_rows, d_in), generator=torch.Generator().manual_seed(3)).float()


def same(a: SparseRows, b: SparseRows) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("indptr_T1", "index_N", "value_N")
    )


@pytest.mark.parametrize("width", [1, 63, 1000])
@pytest.mark.parametrize("topk", [1, 7, 2000])
@pytest.mark.parametrize("num_rows", [0, 1, 130])
def test_the_same_as_sorting_every_row(
    width: int, topk: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk_module, "CHUNK_VALUES", 40 * width)  # 130 rows go through in four chunks
    weights, x_TD = make_weights(16, width, topk), make_inputs(num_rows, 16)
    rows = Encoder(weights, "cpu").encode(x_TD)
    assert same(rows, encode_naive(x_TD, weights))
    assert rows.num_rows == num_rows and int(rows.indptr_T1.diff().amax() if num_rows else 0) <= topk


def test_ties_go_to_the_lower_features() -> None:
    # Every feature has the same pre-activation.
    weights = JumpReluWeights(torch.ones(2, 9), torch.zeros(9), torch.zeros(9), None, topk=4)
    for backend in ("cpu", "naive"):
        rows = Encoder(weights, backend).encode(torch.ones(3, 2))
        assert [rows.row(i)[0].tolist() for i in range(3)] == [[0, 1, 2, 3]] * 3


def test_what_is_not_positive_never_fires() -> None:
    weights = JumpReluWeights(torch.eye(3), torch.zeros(3), torch.zeros(3), None, topk=3)
    rows = Encoder(weights, "cpu").encode(torch.tensor([[1.0, 0.0, -1.0], [-1.0, -2.0, -3.0]]))
    assert torch.equal(rows.dense(), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_weights_in_bfloat16_are_multiplied_in_float32() -> None:
    x_TD = torch.randn(50, 24, generator=torch.Generator().manual_seed(0))
    weights = make_weights(24, 300, 9, torch.bfloat16)
    wide = replace(weights, w_enc_DF=weights.w_enc_DF.float())
    assert same(Encoder(weights, "cpu").encode(x_TD), Encoder(wide, "cpu").encode(x_TD))


def test_without_a_limit_as_before() -> None:
    weights, x_TD = make_weights(16, 100, None), make_inputs(20, 16)
    unlimited = replace(weights, topk=100)
    assert same(Encoder(weights, "cpu").encode(x_TD), Encoder(unlimited, "cpu").encode(x_TD))


@pytest.mark.parametrize("backend", ["cpu", "naive"])
@pytest.mark.parametrize("topk", [None, 5])
@pytest.mark.parametrize("how", ["layer_norm", "unit_rms"])
def test_rows_are_normalised_first(how: InputNorm, topk: int | None, backend: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x_TD = 30.0 * torch.randn(40, 16, generator=generator) + 7.0
    weights = replace(make_weights(16, 64, topk), threshold_F=torch.full((64,), 0.5), input_norm=how)
    if how == "layer_norm":
        normed_TD = (x_TD - x_TD.mean(1, keepdim=True)) / (x_TD.std(1, keepdim=True) + 1e-5)
    else:
        normed_TD = x_TD * 16**0.5 / x_TD.norm(dim=1, keepdim=True)
    assert weights.b_dec_D is not None
    pre_TF = (normed_TD - weights.b_dec_D) @ weights.w_enc_DF + weights.b_enc_F
    kept_TF = pre_TF > 0.5
    if topk is not None:
        kept_TF &= pre_TF >= pre_TF.topk(topk, dim=1).values[:, -1:]
    got_TF = Encoder(weights, backend).encode(x_TD).dense()
    near_TF = (pre_TF - 0.5).abs() < 1e-3
    assert torch.equal((got_TF > 0) | near_TF, kept_TF | near_TF)
    torch.testing.assert_close(got_TF * ~near_TF, pre_TF * (kept_TF & ~near_TF), rtol=2**-7, atol=1e-4)


def test_a_row_of_zeros_stays_one() -> None:
    weights = replace(make_weights(4, 10, 3), input_norm="unit_rms")
    zeros = torch.zeros(1, 4)
    assert same(
        Encoder(weights, "cpu").encode(zeros), encode_naive(zeros, replace(weights, input_norm="none"))
    )


@pytest.mark.parametrize("how", ["none", "layer_norm"])
def test_nan_is_an_error_that_names_the_row(how: InputNorm) -> None:
    x_TD = make_inputs(5, 16)
    x_TD[3, 2] = float("nan")
    with pytest.raises(ModelError, match="row 3 of 5"):
        Encoder(replace(make_weights(16, 20, 4), input_norm=how), "cpu").encode(x_TD)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "naive"])
def test_on_a_gpu_the_same_fire(backend: str) -> None:
    weights, x_TD = make_weights(16, 1000, 7), make_inputs(130, 16)
    there = JumpReluWeights(
        weights.w_enc_DF.cuda(),
        weights.b_enc_F.cuda(),
        weights.threshold_F.cuda(),
        None if weights.b_dec_D is None else weights.b_dec_D.cuda(),
        weights.topk,
    )
    # Sums of whole numbers are exact in any order.
    assert same(Encoder(there, backend).encode(x_TD.cuda()).to("cpu"), encode_naive(x_TD, weights))
