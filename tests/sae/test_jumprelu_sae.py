"""The dictionary in memory: what it hands to encoders and how it decodes."""

from collections.abc import Callable

import pytest
import torch

from ft_audit.kernels.jumprelu import encode
from ft_audit.kernels.sparse_rows import SparseRows
from ft_audit.sae.jumprelu_sae import JumpReluSae

RandomSae = Callable[..., JumpReluSae]


@pytest.mark.parametrize("num_rows", [0, 1, 63])
def test_decoding_equals_the_dense_product(random_sae: RandomSae, num_rows: int) -> None:
    sae = random_sae(width=300)
    x_TD = torch.randn(num_rows, 8, generator=torch.Generator().manual_seed(1))
    x_TD[num_rows // 2 : num_rows // 2 + 1] = -1e-3  # hardly anything fires: a row may be empty
    rows = encode(x_TD, sae.weights("cpu"))
    decoded_TD = sae.decode(rows)
    assert decoded_TD.shape == (num_rows, 8)
    torch.testing.assert_close(decoded_TD, rows.dense() @ sae.w_dec_FD + sae.b_dec_D, rtol=1e-5, atol=1e-4)


def test_a_row_on_which_nothing_fires_decodes_to_the_bias(random_sae: RandomSae) -> None:
    sae = random_sae()
    rows = SparseRows(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([7], dtype=torch.int32),
        torch.tensor([2.0], dtype=torch.bfloat16),
        20,
    )
    decoded_TD = sae.decode(rows)
    assert torch.equal(decoded_TD[[0, 2]], sae.b_dec_D.expand(2, 8))
    torch.testing.assert_close(decoded_TD[1], sae.b_dec_D + 2.0 * sae.w_dec_FD[7])


def test_rows_of_another_dictionary_are_refused(random_sae: RandomSae) -> None:
    rows = encode(torch.zeros(2, 8), random_sae(width=21).weights("cpu"))
    with pytest.raises(AssertionError):
        random_sae(width=20).decode(rows)


def test_weights_come_in_the_smallest_exact_precision(random_sae: RandomSae) -> None:
    assert random_sae().weights("cpu").w_enc_DF.dtype == torch.float32
    assert random_sae(dtype=torch.bfloat16).weights("cpu").w_enc_DF.dtype == torch.bfloat16
    assert random_sae().weights("cpu", torch.bfloat16).w_enc_DF.dtype == torch.bfloat16


def test_moving_keeps_everything(random_sae: RandomSae) -> None:
    sae = random_sae()
    moved = sae.to("cpu")
    assert moved.spec == sae.spec
    assert torch.equal(moved.w_dec_FD, sae.w_dec_FD)


def test_folding_and_hashing_follow_the_formula(random_sae: RandomSae) -> None:
    # random_sae folds scale 0.25 and threshold 0.5; the same draws, unfolded, are the trained dictionary.
    sae = random_sae()
    generator = torch.Generator().manual_seed(0)
    w_enc_DF = torch.randn(8, 20, generator=generator)
    w_dec_FD = torch.nn.functional.normalize(torch.randn(20, 8, generator=generator), dim=1)
    b_enc_F, b_dec_D = torch.randn(20, generator=generator), torch.randn(8, generator=generator)
    x_TD = 10.0 * torch.randn(40, 8, generator=generator)
    scaled_TD = 0.25 * x_TD
    pre_TF = (scaled_TD - b_dec_D) @ w_enc_DF + b_enc_F
    acts_TF = torch.where(pre_TF > 0.5, pre_TF, 0.0)
    rows = encode(x_TD, sae.weights("cpu"))
    torch.testing.assert_close(rows.dense(), (acts_TF / 0.25).bfloat16().float(), rtol=2**-7, atol=1e-5)
    wanted_TD = rows.dense() @ w_dec_FD + b_dec_D / 0.25
    torch.testing.assert_close(sae.decode(rows), wanted_TD, rtol=1e-5, atol=1e-4)
    assert random_sae(seed=1).spec.sha256 != sae.spec.sha256


def test_squared_errors_are_those_of_the_reconstruction(random_sae: RandomSae) -> None:
    sae = random_sae(width=300)
    x_TD = torch.randn(63, 8, generator=torch.Generator().manual_seed(1))
    rows = encode(x_TD, sae.weights("cpu"))
    error_T, square_T = sae.squared_errors(rows, x_TD, x_TD)
    torch.testing.assert_close(error_T, (x_TD - sae.decode(rows)).square().sum(1))
    torch.testing.assert_close(square_T, x_TD.square().sum(1))
    with pytest.raises(AssertionError):
        random_sae(width=20).squared_errors(rows, x_TD, x_TD)
