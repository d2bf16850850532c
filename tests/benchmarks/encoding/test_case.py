"""The inputs of the encode benchmark: what is drawn is what its name says."""

import pytest
import torch

from ft_audit.benchmarks.encoding.case import at_least, draw_dictionary, synthetic_residuals, width_name
from ft_audit.kernels.jumprelu import encode_naive


def test_a_drawn_dictionary_fires_as_often_as_asked_and_on_the_rows_it_was_drawn_from() -> None:
    x_TD = synthetic_residuals(1024, 64)
    weights = draw_dictionary(x_TD, 3000, l0=40.0)
    rows = encode_naive(x_TD, weights, torch.float64)
    assert rows.l0 == pytest.approx(40.0, rel=0.1)
    fired_F = torch.bincount(rows.index_N.long(), minlength=3000)
    assert float((fired_F > 0).float().mean()) > 0.95
    assert weights.w_enc_DF.dtype == torch.bfloat16
    assert bool((weights.threshold_F > 0).all())


def test_directions_are_of_unit_length_and_follow_the_residuals() -> None:
    x_TD = torch.zeros(500, 32)
    x_TD[:, :4] = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    w_DF = draw_dictionary(x_TD.bfloat16(), 400, noise=0.1).w_enc_DF.float()
    assert torch.allclose(w_DF.norm(dim=0), torch.ones(400), atol=0.01)
    assert float(w_DF[:4].pow(2).sum(0).mean()) > 0.97


def test_the_same_seed_draws_the_same() -> None:
    x_TD = synthetic_residuals(300, 16)
    a, b, other = (draw_dictionary(x_TD, 100, l0=5.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.w_enc_DF, b.w_enc_DF)
    assert torch.equal(a.threshold_F, b.threshold_F)
    assert not torch.equal(a.w_enc_DF, other.w_enc_DF)
    assert torch.equal(x_TD, synthetic_residuals(300, 16))


def test_synthetic_residuals_have_three_massive_dimensions() -> None:
    x_TD = synthetic_residuals(500, 96).float()
    mean_D = x_TD.mean(0).abs()
    assert int((mean_D > 50.0).sum()) == 3
    assert float(x_TD.abs().median()) < 5.0


def test_rows_repeat_in_order_where_there_are_too_few() -> None:
    x_TD = torch.arange(3.0)[:, None]
    assert at_least(x_TD, 7)[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert at_least(x_TD, 2)[:, 0].tolist() == [0, 1]


def test_widths_are_named_as_dictionaries_are() -> None:
    assert [width_name(width) for width in (512, 4096, 65_536, 1 << 20)] == ["512", "4k", "65k", "1m"]
