"""One training step: its hand-written gradients against autograd, and what it reports."""

import pytest
import torch
from torch import Tensor

from ft_audit.sae.batch_topk import BatchTopK, Start

BATCH, D_IN, WIDTH, K = 40, 12, 30, 3


def make_model(x_BD: Tensor, **changes: object) -> BatchTopK:
    told: dict[str, object] = {
        "width": WIDTH,
        "k": K,
        "lr": 1e-3,
        "seed": 0,
        "compute": torch.float32,
        "dead_after_tokens": 10_000,
        "aux_coefficient": 0.0,
    }
    model = BatchTopK(x_BD, **(told | changes))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    model.w_enc_DF += 0.1 * torch.randn(model.w_enc_DF.shape, generator=generator)
    model.b_enc_F += 0.1 * torch.randn(model.b_enc_F.shape, generator=generator)
    return model


@pytest.fixture
def x_BD() -> Tensor:
    return torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(2)) + 1.0


def autograd_step(model: BatchTopK, x_BD: Tensor, aux_A: Tensor, coefficient: float) -> list[Tensor]:
    """The gradients of half the summed squared error per token, as autograd sees them."""
    w_enc, w_dec, b_enc, b_dec = (p.detach().clone().requires_grad_() for p in model.parameters)
    pre_BF = (x_BD - b_dec) @ w_enc + b_enc
    cut = pre_BF.detach().flatten().topk(K * BATCH + 1).values[-1].clamp_min(0.0)
    act_BF = torch.where(pre_BF > cut, pre_BF, 0.0)
    error_BD = act_BF @ w_dec + b_dec - x_BD
    loss = error_BD.square().sum() / (2 * BATCH)
    # The auxiliary term sees a fixed residue and a fixed b_dec.
    aux_BA = ((x_BD - b_dec.detach()) @ w_enc[:, aux_A] + b_enc[aux_A]).relu()
    aux_error_BD = aux_BA @ w_dec[aux_A] + error_BD.detach()
    (loss + coefficient * aux_error_BD.square().sum() / (2 * BATCH)).backward()
    radial_F1 = (w_dec.grad * w_dec).sum(1, keepdim=True)
    w_dec.grad -= radial_F1.detach() * w_dec.detach()
    return [p.grad for p in (w_enc, w_dec, b_enc, b_dec)]


def test_gradients_equal_autograd(x_BD: Tensor) -> None:
    model = make_model(x_BD)
    wanted = autograd_step(model, x_BD, torch.empty(0, dtype=torch.long), 0.0)
    model.step(x_BD, lr=0.0)
    for parameter, gradient in zip(model.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_gradients_of_nested_prefixes_equal_autograd(x_BD: Tensor) -> None:
    prefixes = (7, 18, WIDTH)
    model = make_model(x_BD, prefixes=prefixes)
    w_enc, w_dec, b_enc, b_dec = (p.detach().clone().requires_grad_() for p in model.parameters)
    pre_BF = (x_BD - b_dec) @ w_enc + b_enc
    cut = pre_BF.detach().flatten().topk(K * BATCH + 1).values[-1].clamp_min(0.0)
    act_BF = torch.where(pre_BF > cut, pre_BF, 0.0)
    errors = [act_BF[:, :n] @ w_dec[:n] + b_dec - x_BD for n in prefixes]
    (sum(e.square().sum() for e in errors) / (2 * BATCH * len(prefixes))).backward()
    w_dec.grad -= (w_dec.grad * w_dec).sum(1, keepdim=True).detach() * w_dec.detach()
    stats = model.step(x_BD, lr=0.0)
    for parameter, wanted in zip(model.parameters, (w_enc, w_dec, b_enc, b_dec), strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-4, atol=1e-5)
    total = (x_BD - x_BD.mean(0)).square().sum()
    assert stats.fvu == pytest.approx(float(errors[-1].detach().square().sum() / total), rel=1e-4)


def test_features_compete_in_units_of_their_thresholds(x_BD: Tensor) -> None:
    threshold_F = torch.linspace(0.2, 3.0, WIDTH)
    fresh = make_model(x_BD)
    start = Start(fresh.w_enc_DF, fresh.w_dec_FD, fresh.b_enc_F, fresh.b_dec_D, threshold_F)
    model = BatchTopK(
        x_BD,
        width=WIDTH,
        k=K,
        lr=1e-3,
        seed=0,
        compute=torch.float32,
        dead_after_tokens=10_000,
        aux_coefficient=0.0,
        start=start,
    )
    pre_BF = (x_BD - model.b_dec_D) @ model.w_enc_DF + model.b_enc_F
    wanted = (pre_BF / threshold_F).flatten().topk(K * BATCH).values[-1]
    stats = model.step(x_BD, lr=0.0)
    assert stats.min_kept == pytest.approx(float(wanted), rel=1e-5)
    fired_F = ((pre_BF / threshold_F) >= wanted).any(0)
    assert torch.equal(model.silent_F == 0, fired_F)
    assert not torch.equal(fired_F, (pre_BF >= pre_BF.flatten().topk(K * BATCH).values[-1]).any(0))


def test_gradients_equal_autograd_with_dead_features(x_BD: Tensor) -> None:
    model = make_model(x_BD, aux_coefficient=0.5)
    dead = torch.tensor([4, 11, 25])
    model.silent_F[dead] = 20_000.0
    wanted = autograd_step(model, x_BD, dead, 0.5)
    model.step(x_BD, lr=0.0)
    for parameter, gradient in zip(model.parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_keeps_k_a_token_over_the_batch(x_BD: Tensor) -> None:
    model = make_model(x_BD)
    for _ in range(3):  # the first search has no guess, the later ones have one
        stats = model.step(x_BD, lr=0.0)
        assert stats.l0 == K
        assert 0 < stats.min_kept < float("inf")
        assert 0 < stats.fvu < 10


def test_a_guess_that_is_too_high_is_dropped(x_BD: Tensor) -> None:
    model = make_model(x_BD)
    model.guess = 1e6
    assert model.step(x_BD, lr=0.0).l0 == K


def test_keeps_only_positive_activations(x_BD: Tensor) -> None:
    model = make_model(x_BD)
    model.b_enc_F -= 1e6
    stats = model.step(x_BD, lr=0.0)
    assert stats.l0 == 0
    assert stats.min_kept == float("inf")


def test_silence_is_counted_in_tokens(x_BD: Tensor) -> None:
    model = make_model(x_BD, dead_after_tokens=2 * BATCH)
    model.b_enc_F[5] = -1e6
    dead_shares = [model.step(x_BD, lr=0.0).dead_share for _ in range(2)]
    assert float(model.silent_F[5]) == 2 * BATCH
    assert dead_shares[0] == 0.0
    assert dead_shares[1] >= 1 / WIDTH


def test_decoder_rows_keep_unit_norm(x_BD: Tensor) -> None:
    model = make_model(x_BD)
    for _ in range(5):
        model.step(x_BD, lr=1e-2)
    torch.testing.assert_close(model.w_dec_FD.norm(dim=1), torch.ones(WIDTH))


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_poisoned_buffers_never_show(x_BD: Tensor, compute: torch.dtype) -> None:
    clean, poisoned = make_model(x_BD, compute=compute), make_model(x_BD, compute=compute)
    poisoned._act_BF.fill_(float("nan"))
    poisoned._grad_BF.fill_(float("nan"))
    assert clean.step(x_BD, lr=1e-3) == poisoned.step(x_BD, lr=1e-3)
    for a, b in zip(clean.parameters, poisoned.parameters, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("coefficient", "revived"), [(0.0, False), (0.5, True)])
def test_the_auxiliary_loss_alone_moves_a_dead_feature(coefficient: float, revived: bool) -> None:
    # Every token is 3 along the first axis, which feature 0 explains, and 1 or -1 along the second, which
    # feature 1 sees faintly and never with an activation among the k largest.
    x_BD = torch.tensor([[3.0, 1.0], [3.0, -1.0]]).repeat(4, 1)
    model = make_model(torch.zeros(8, 2), width=2, k=1, aux_coefficient=coefficient, dead_after_tokens=8)
    model.w_dec_FD.copy_(torch.eye(2))
    model.w_enc_DF.copy_(torch.diag(torch.tensor([1.0, 0.3])))
    model.b_enc_F.zero_()
    for _ in range(200):
        model.step(x_BD, lr=0.02)
    seen = float((x_BD[0] - model.b_dec_D) @ model.w_enc_DF[:, 1] + model.b_enc_F[1])
    assert seen == pytest.approx(1.0 if revived else 0.3, abs=0.1)
