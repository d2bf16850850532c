"""A TopK dictionary approximated by a threshold, and the measure of how far off it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ft_audit.errors import DataError, SaeError
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae import threshold as threshold_module
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.threshold import by_threshold, read_activations

RandomSae = Callable[..., JumpReluSae]
K = 6


def topk_of(sae: JumpReluSae) -> JumpReluSae:
    return replace(sae, topk=K, threshold_F=torch.zeros_like(sae.threshold_F))


def tokens(num: int, d_in: int = 8) -> Tensor:
    return torch.randn(num, d_in, generator=torch.Generator().manual_seed(4))


def test_as_many_fire_on_average_and_the_difference_is_measured(
    random_sae: RandomSae, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threshold_module, "CHUNK_VALUES", 7 * 60)
    sae, x_TD = topk_of(random_sae(width=60)), tokens(801)
    approximate, found = by_threshold(sae, x_TD)
    assert approximate.topk is None and approximate.activation == "jumprelu"
    assert approximate.spec.sha256 != sae.spec.sha256
    fitted = Encoder(approximate.weights("cpu")).encode(x_TD[::2])
    assert fitted.num_nonzeros == K * 401
    exact_TF, near_TF = (
        Encoder(each.weights("cpu")).encode(x_TD[1::2]).dense() > 0 for each in (sae, approximate)
    )
    assert (found.num_tokens, found.topk) == (400, K)
    assert found.missed == pytest.approx(float((exact_TF & ~near_TF).sum() / exact_TF.sum()))
    assert found.added == pytest.approx(float((near_TF & ~exact_TF).sum() / near_TF.sum()))
    assert 0 < found.missed < 0.5 and 0 < found.added < 0.5
    assert found.l0_topk <= K and found.l0_threshold == pytest.approx(K, rel=0.1)
    x_TD = x_TD[1::2]
    rows = Encoder(sae.weights("cpu")).encode(x_TD)
    fvu = (x_TD - sae.decode(rows)).square().sum() / (x_TD - x_TD.mean(0)).square().sum()
    assert found.fvu_topk == pytest.approx(float(fvu), rel=1e-3)


def test_where_hardly_anything_is_positive_all_of_it_fires(random_sae: RandomSae) -> None:
    sae = topk_of(random_sae(width=10))
    _, found = by_threshold(replace(sae, b_enc_F=torch.full((10,), -1e3)), tokens(400))
    assert found.threshold == 0.0 and found.l0_threshold == found.l0_topk == 0.0


def test_what_is_no_topk_autoencoder_is_refused(random_sae: RandomSae) -> None:
    with pytest.raises(SaeError, match="only TopK autoencoders are given a threshold"):
        by_threshold(random_sae(), tokens(400))
    sae = topk_of(random_sae())
    transcoder = replace(sae, spec=replace(sae.spec, writes=("mlp_out/3",)))
    with pytest.raises(SaeError, match="only TopK autoencoders"):
        by_threshold(transcoder, tokens(400))


@pytest.mark.parametrize("shape", [(199, 8), (400, 9), (8,)])
def test_activations_that_do_not_fit_are_refused(random_sae: RandomSae, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least 200 rows of 8 dimensions, taken at resid_post/3"):
        by_threshold(topk_of(random_sae()), torch.zeros(shape))


def test_activations_from_either_file(tmp_path: Path) -> None:
    x_TD = tokens(5)
    np.save(tmp_path / "x.npy", x_TD.numpy())
    save_file({"any": x_TD.bfloat16()}, tmp_path / "x.safetensors")
    assert torch.equal(read_activations(tmp_path / "x.npy"), x_TD)
    assert torch.equal(read_activations(tmp_path / "x.safetensors"), x_TD.bfloat16().float())
    save_file({"a": x_TD, "b": 2 * x_TD}, tmp_path / "two.safetensors")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, says in [
        ("two.safetensors", "holds 2 tensors"),
        ("objects.npy", "not a readable"),
        ("none.npy", "not"),
    ]:
        with pytest.raises(DataError, match=says):
            read_activations(tmp_path / name)
