"""Divergence and entropy of next-token distributions against SciPy on the full distributions."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

from ft_audit.engine.diff import next_token
from ft_audit.engine.diff.next_token import next_token_diff

WIDTH, VOCABULARY = 12, 50


def head(seed: int, size: int = VOCABULARY) -> nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Linear(WIDTH, size, bias=False)
    made.weight.data = torch.randn(size, WIDTH, generator=generator)
    return made


def hidden(seed: int, rows: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def distribution(x_PD: np.ndarray, layer: nn.Linear) -> np.ndarray:
    weight_VD = layer.weight.detach().numpy().astype(np.float64)
    p_PV: np.ndarray = special.softmax(x_PD.astype(np.float64) @ weight_VD.T, axis=1)
    return p_PV


@pytest.mark.parametrize("rows_at_once", [1, 4, 32])
def test_divergence_and_entropy_are_scipys(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "ROWS_AT_ONCE", rows_at_once)
    base_PD, tuned_PD, base_head, tuned_head = hidden(0), hidden(1), head(2), head(3)
    got = next_token_diff(base_PD, tuned_PD, base_head, tuned_head)
    base_PV, tuned_PV = distribution(base_PD, base_head), distribution(tuned_PD, tuned_head)
    np.testing.assert_allclose(got.kl_P, stats.entropy(tuned_PV, base_PV, axis=1), rtol=1e-4)
    np.testing.assert_allclose(got.entropy_base_P, stats.entropy(base_PV, axis=1), rtol=1e-4)
    np.testing.assert_allclose(got.entropy_tuned_P, stats.entropy(tuned_PV, axis=1), rtol=1e-4)
    # The direction matters: base against tuned is another number.
    assert not np.allclose(got.kl_P, stats.entropy(base_PV, tuned_PV, axis=1), rtol=0.01)


def test_added_tokens_are_left_out_of_both_distributions() -> None:
    base_PD, tuned_PD, base_head, tuned_head = hidden(0), hidden(1), head(2), head(3, VOCABULARY + 3)
    got = next_token_diff(base_PD, tuned_PD, base_head, tuned_head)
    tuned_PV = distribution(tuned_PD, tuned_head)[:, :VOCABULARY]
    shared_PV = tuned_PV / tuned_PV.sum(1, keepdims=True)
    np.testing.assert_allclose(
        got.kl_P, stats.entropy(shared_PV, distribution(base_PD, base_head), axis=1), rtol=1e-4
    )


def test_nearly_equal_models_diverge_by_nothing_and_never_by_less() -> None:
    base_PD, layer = hidden(4, 64), head(5, 4000)
    assert (next_token_diff(base_PD, base_PD, layer, layer).kl_P == 0).all()

    def nudged(x_ND: Tensor) -> Tensor:
        logits_NV: Tensor = layer(x_ND)
        return logits_NV * (1 + 1e-7)

    kl_P = next_token_diff(base_PD, base_PD, layer, nudged).kl_P
    assert (kl_P >= 0).all() and (kl_P < 1e-5).all()
