"""The report card against the same figures computed densely."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ft_audit.errors import DataError
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.report_card import report_card

RandomSae = Callable[..., JumpReluSae]


def inputs() -> Tensor:
    return 10.0 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))


def test_figures_equal_the_dense_computation(random_sae: RandomSae) -> None:
    sae = random_sae()
    x_TD = inputs()
    card = report_card(sae, iter(x_TD.split(150)))
    pre_TF = x_TD @ sae.w_enc_DF + sae.b_enc_F
    acts_TF = (pre_TF.relu() * (pre_TF > sae.threshold_F)).bfloat16().float()
    decoded_TD = acts_TF @ sae.w_dec_FD + sae.b_dec_D
    assert card.num_tokens == 400
    assert card.l0 == pytest.approx(float((acts_TF > 0).sum(1).float().mean()))
    total = (x_TD - x_TD.mean(0)).square().sum()
    assert card.fvu == pytest.approx(float((decoded_TD - x_TD).square().sum() / total), rel=1e-4)
    cosine = torch.cosine_similarity(decoded_TD - sae.b_dec_D, x_TD - sae.b_dec_D)
    assert card.cosine == pytest.approx(float(cosine.mean()), rel=1e-4)
    assert card.dead_share == int((acts_TF.sum(0) == 0).sum()) / 20


def test_density_counts_every_feature_once(random_sae: RandomSae) -> None:
    sae = random_sae()
    sae.threshold_F[:3] = 1e9
    card = report_card(sae, iter(inputs().split(150)))
    pre_TF = inputs() @ sae.w_enc_DF + sae.b_enc_F
    rate_F = (pre_TF > sae.threshold_F.clamp_min(0)).float().mean(0)
    assert sum(card.density.values()) == 20
    assert card.density["0"] >= 3
    assert card.density["0"] == int((rate_F == 0).sum())
    assert card.density["<=1"] == int((rate_F > 0.1).sum())
    assert card.dead_share == card.density["0"] / 20


def test_empty_chunks_change_nothing(random_sae: RandomSae) -> None:
    def with_gaps() -> Iterator[Tensor]:
        for chunk in inputs().split(150):
            yield chunk
            yield chunk[:0]

    assert report_card(random_sae(), with_gaps()) == report_card(random_sae(), iter(inputs().split(150)))


def test_nothing_to_judge_is_an_error(random_sae: RandomSae) -> None:
    with pytest.raises(DataError, match="no held-out tokens"):
        report_card(random_sae(), iter(()))
    with pytest.raises(DataError, match="all equal"):
        report_card(random_sae(), iter([torch.ones(50, 8)]))
