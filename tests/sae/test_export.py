"""From the trainer's units to stored ones and back."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ft_audit.errors import SaeError
from ft_audit.sae.export import MIN_THRESHOLD, export_jumprelu, training_start
from ft_audit.sae.jumprelu_sae import JumpReluSae

RandomSae = Callable[..., JumpReluSae]


@pytest.mark.parametrize("subtracts", [True, False])
def test_what_a_training_starts_from_is_the_dictionary(random_sae: RandomSae, subtracts: bool) -> None:
    """With any scale, and decoder norms other than 1: the same features fire and explain the same."""
    scale = 0.03
    norm_F = torch.linspace(0.5, 2.0, 20)
    sae = random_sae()
    sae = replace(sae, w_dec_FD=sae.w_dec_FD * norm_F[:, None], apply_b_dec_to_input=subtracts)
    x_TD = 10.0 * torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    pre_TF = (x_TD - (sae.b_dec_D if subtracts else 0.0)) @ sae.w_enc_DF + sae.b_enc_F
    act_TF = torch.where(pre_TF > sae.threshold_F, pre_TF, 0.0)
    start = training_start(sae, scale)
    own_TF = (scale * x_TD - start.b_dec_D) @ start.w_enc_DF + start.b_enc_F
    torch.testing.assert_close(own_TF, scale * norm_F * pre_TF, rtol=1e-4, atol=1e-4)
    own_TF = torch.where(own_TF > start.threshold_F, own_TF, 0.0)
    decoded_TD = (own_TF @ start.w_dec_FD + start.b_dec_D) / scale
    torch.testing.assert_close(decoded_TD, act_TF @ sae.w_dec_FD + sae.b_dec_D, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(start.w_dec_FD.norm(dim=1), torch.ones(20))


def test_a_start_that_is_exported_again_is_what_it_was(random_sae: RandomSae) -> None:
    sae = random_sae()
    start = training_start(sae, 0.1)
    again = export_jumprelu(
        w_enc_DF=start.w_enc_DF,
        w_dec_FD=start.w_dec_FD,
        b_enc_F=start.b_enc_F,
        b_dec_D=start.b_dec_D,
        scale=0.1,
        threshold_F=start.threshold_F,
        dtype=torch.float32,
        name="again",
        layer=3,
        site="resid_post",
        model_name="tiny/model",
        l0=None,
    )
    for name in ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D", "threshold_F"):
        torch.testing.assert_close(getattr(again, name), getattr(sae, name), rtol=1e-4, atol=1e-5)


def test_thresholds_at_zero_do_not_win_everything(random_sae: RandomSae) -> None:
    sae = random_sae()
    threshold_F = sae.threshold_F.clone()
    threshold_F[:3] = 0.0
    start = training_start(replace(sae, threshold_F=threshold_F), 1.0)
    torch.testing.assert_close(start.threshold_F[0], MIN_THRESHOLD * start.threshold_F[3:].median())
    relu = training_start(replace(sae, threshold_F=torch.zeros(20)), 1.0)
    assert torch.equal(relu.threshold_F, torch.ones(20))


def test_a_start_that_the_trainer_cannot_hold_is_refused(random_sae: RandomSae) -> None:
    sae = random_sae()
    transcoder = replace(sae, spec=replace(sae.spec, writes=("mlp_out/3",)))
    for other in (transcoder, replace(sae, input_norm="layer_norm")):
        with pytest.raises(
            SaeError, match="training goes on from one that reconstructs the one hook it reads"
        ):
            training_start(other, 0.1)
