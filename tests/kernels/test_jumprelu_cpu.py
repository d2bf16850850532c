"""The CPU path's screens: each proves enough, and none shows in the result."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights, encode_naive
from ft_audit.kernels.jumprelu import cpu as cpu_module
from ft_audit.kernels.jumprelu.cpu import CpuEncoder
from ft_audit.kernels.jumprelu.cpu_rotation import draw_rotation, rotate_rows
from ft_audit.kernels.jumprelu.cpu_screens import int8_is_exact
from ft_audit.kernels.sparse_rows import SparseRows

INT8, FLOAT32, BFLOAT16 = torch.int8, torch.float32, torch.bfloat16
SCREENS = (INT8, BFLOAT16, FLOAT32) if int8_is_exact() else (BFLOAT16, FLOAT32)


def drawn(
    num_rows: int,
    d_in: int,
    width: int,
    *,
    seed: int = 0,
    massive: float = 1.0,
    dtype: torch.dtype = BFLOAT16,
) -> tuple[Tensor, JumpReluWeights]:
    """Rows with a shared mean and a massive dimension, and a dictionary of which about 2 % fires."""
    generator = torch.Generator().manual_seed(seed)
    x_TD = torch.randn(num_rows, d_in, generator=generator) + 0.5 * torch.randn(d_in, generator=generator)
    x_TD[:, d_in // 2] *= massive
    x_TD = x_TD.to(dtype)
    w_enc_DF = (torch.randn(d_in, width, generator=generator) / d_in**0.5).to(dtype)
    scale = float(x_TD.float().norm(dim=1).mean()) / d_in**0.5 if num_rows else 1.0
    threshold_F = scale * (2.0 + 0.2 * torch.randn(width, generator=generator))
    return x_TD, JumpReluWeights(w_enc_DF, 0.1 * torch.randn(width, generator=generator), threshold_F, None)


def same(a: SparseRows, b: SparseRows) -> bool:
    return (
        torch.equal(a.indptr_T1, b.indptr_T1)
        and torch.equal(a.index_N, b.index_N)
        and torch.equal(a.value_N.view(torch.int16), b.value_N.view(torch.int16))
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.sampled_from([0, 1, 2, 33, 100]),
    d_in=st.sampled_from([1, 7, 64, 96, 577]),
    width=st.sampled_from([1, 63, 2048, 2049, 4500]),
    massive=st.sampled_from([1.0, 100.0]),
    screening=st.sampled_from(SCREENS),
)
def test_every_screen_leaves_the_exact_sums_bit_for_bit(seed, num_rows, d_in, width, massive, screening):
    x_TD, weights = drawn(num_rows, d_in, width, seed=seed, massive=massive)
    exact = encode_naive(x_TD, weights, torch.float64)
    assert same(CpuEncoder(weights, 100, screening).encode(x_TD), exact)


@pytest.mark.parametrize("screening", SCREENS)
def test_rows_unlike_those_that_set_the_centre_stay_exact(screening: torch.dtype) -> None:
    x_TD, weights = drawn(64, 128, 3000)
    encoder = CpuEncoder(weights, 64, screening)
    encoder.encode(x_TD)
    elsewhere_TD = (-50.0 * x_TD.float() + 300.0).to(BFLOAT16)
    exact = encode_naive(elsewhere_TD, weights, torch.float64)
    assert exact.num_nonzeros > 1000
    assert same(encoder.encode(elsewhere_TD), exact)


@pytest.mark.skipif(not int8_is_exact(), reason="products in eight bits may saturate here")
def test_the_product_in_eight_bits_stays_within_its_bound() -> None:
    x_TD, weights = drawn(40, 192, 600, massive=50.0)
    encoder = CpuEncoder(weights, 40, INT8)
    encoder.encode(x_TD)
    screen = encoder._screen
    assert screen is not None
    lowest_F, by_norm_F, by_rounding_F = (torch.from_numpy(row).double() for row in screen.bounds[0])
    factor_T3 = np.concatenate([part.factor_T3 for part in encoder._parts])
    unit_T, norm_T, rounding_T = torch.from_numpy(factor_T3).double().T[:, :, None]
    # What `scan` compares: screened >= unit * lowest - band, where unit * lowest stands for pre == cut.
    cut_F = weights.threshold_F.clamp_min(0.0).double()
    pre_TF = x_TD.double() @ weights.w_enc_DF.double() + weights.b_enc_F.double()
    scale_F = _scales(encoder)
    exact_TF = unit_T * (lowest_F + (pre_TF - cut_F) / scale_F)
    off_TF = (encoder.screened(40).double() - exact_TF).abs()
    band_TF = norm_T * by_norm_F + rounding_T * by_rounding_F
    slack_TF = 2.0**-19 * (unit_T * lowest_F).abs() + 1e-3
    assert bool((off_TF <= band_TF + slack_TF).all())
    assert float((off_TF / band_TF).max()) > 0.02  # a bound far from every error would prove nothing


def _scales(encoder: CpuEncoder) -> Tensor:
    exact_FD = encoder.weights.w_enc_DF.t().double().contiguous()
    rotate_rows(exact_FD.numpy(), draw_rotation(encoder.weights.d_in))
    return exact_FD.abs().amax(dim=1) / 127.0


@pytest.mark.parametrize("d_in", [1, 2, 7, 64, 96, 576, 640])
def test_the_rotation_keeps_inner_products_and_spreads_a_large_dimension(d_in: int) -> None:
    rng = np.random.default_rng(0)
    rows_TD = rng.standard_normal((5, d_in))
    rows_TD[:, 0] *= 1000.0
    rotated_TD = rows_TD.copy()
    rotate_rows(rotated_TD, draw_rotation(d_in))
    np.testing.assert_allclose(rotated_TD @ rotated_TD.T, rows_TD @ rows_TD.T, rtol=1e-12)
    if d_in >= 64:
        peak = np.abs(rotated_TD).max(axis=1) / np.linalg.norm(rotated_TD, axis=1)
        assert peak.max() < 0.5 < (np.abs(rows_TD).max(axis=1) / np.linalg.norm(rows_TD, axis=1)).min()


def test_the_race_keeps_one_screen_and_never_changes_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_module, "MIN_RACE_WIDTH", 1000)
    monkeypatch.setattr(cpu_module, "int8_may_pay", int8_is_exact)
    x_TD, weights = drawn(600, 64, 1500)
    exact = encode_naive(x_TD, weights, torch.float64)
    encoder = CpuEncoder(weights, 600)
    assert same(encoder.encode(x_TD[:100]), encode_naive(x_TD[:100], weights, torch.float64))
    assert encoder._may_race == int8_is_exact()  # too few rows to tell
    assert same(encoder.encode(x_TD), exact)
    assert not encoder._may_race and encoder.screening in SCREENS
    assert same(encoder.encode(x_TD), exact)


def test_without_whole_products_eight_bits_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_module, "MIN_RACE_WIDTH", 1000)
    monkeypatch.setattr(cpu_module, "int8_may_pay", lambda: False)
    x_TD, weights = drawn(600, 64, 1500)
    encoder = CpuEncoder(weights, 600)
    encoder.encode(x_TD)
    assert encoder.screening == cpu_module.fastest_matmul_dtype()


def test_memory_for_screening_does_not_grow_with_the_dictionary() -> None:
    x_TD, weights = drawn(64, 8, 50_000)
    encoder = CpuEncoder(weights, 64, FLOAT32)
    encoder.encode(x_TD)
    held = sum(buffer.numel() * buffer.element_size() for buffer in encoder._buffers.values())
    assert held == 64 * cpu_module.FEATURES_A_BLOCK * 4
    assert same(encoder.encode(x_TD), encode_naive(x_TD, weights, torch.float64))


@pytest.mark.parametrize("screening", SCREENS)
def test_a_row_that_is_not_finite_is_refused_whatever_the_screen(screening: torch.dtype) -> None:
    x_TD, weights = drawn(40, 32, 100)
    x_TD[17, 3] = float("inf")
    with pytest.raises(cpu_module.NotFiniteError):
        CpuEncoder(weights, 40, screening).encode(x_TD)


def test_a_wide_dictionary_goes_through_the_public_encoder() -> None:
    x_TD, weights = drawn(1300, 64, 9000, dtype=FLOAT32)
    rows = Encoder(weights, "cpu").encode(x_TD)
    assert same(rows, encode_naive(x_TD, weights, torch.float64))
