"""Small dictionaries and the activations they explain, handed to the tests of this room as fixtures."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ft_audit.sae.export import export_jumprelu
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.recipe import SaeTrainRecipe

D_IN, NUM_CAUSES = 24, 40


def make_sae(
    d_in: int = 8, width: int = 20, seed: int = 0, dtype: torch.dtype = torch.float32
) -> JumpReluSae:
    """A dictionary of random weights, folded and hashed as a trained one is."""
    generator = torch.Generator().manual_seed(seed)
    return export_jumprelu(
        w_enc_DF=torch.randn(d_in, width, generator=generator),
        w_dec_FD=torch.nn.functional.normalize(torch.randn(width, d_in, generator=generator), dim=1),
        b_enc_F=torch.randn(width, generator=generator),
        b_dec_D=torch.randn(d_in, generator=generator),
        scale=0.25,
        threshold_F=torch.full((width,), 0.5),
        dtype=dtype,
        name="random",
        layer=3,
        site="resid_post",
        model_name="tiny/model",
        l0=4.0,
    )


def stream_planted(num_tokens: int, chunk: int = 500, seed: int = 0) -> Iterator[Tensor]:
    """Sums of about three of NUM_CAUSES directions, off-centre and large, as [n, D_IN] chunks."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(
        torch.randn(NUM_CAUSES, D_IN, generator=torch.Generator().manual_seed(7)), dim=1
    )
    mean_D = 5.0 * torch.randn(D_IN, generator=torch.Generator().manual_seed(8))
    while num_tokens > 0:
        n = min(chunk, num_tokens)
        num_tokens -= n
        present = torch.rand(n, NUM_CAUSES, generator=generator) < 3.0 / NUM_CAUSES
        strength = present * (1.0 + torch.rand(n, NUM_CAUSES, generator=generator))
        yield 30.0 * (strength @ directions + mean_D)


def make_recipe(out: str = "unused", **changes: object) -> SaeTrainRecipe:
    """A recipe that learns the planted directions in about a second."""
    told: dict[str, object] = {
        "model": "tiny/model",
        "layer": 3,
        "suites": ["planted"],
        "num_tokens": 60_000,
        "width": 64,
        "k": 4,
        "lr": 1e-2,
        "batch": 250,
        "out": out,
        "buffer_tokens": 2_000,
        "dead_after_tokens": 4_000,
        "checkpoint_every_tokens": 10_000,
        "compute": "float32",
    }
    return SaeTrainRecipe.model_validate(told | changes)


@pytest.fixture
def random_sae() -> Callable[..., JumpReluSae]:
    return make_sae


@pytest.fixture
def planted() -> Callable[..., Iterator[Tensor]]:
    return stream_planted


@pytest.fixture
def tiny_recipe() -> Callable[..., SaeTrainRecipe]:
    return make_recipe
