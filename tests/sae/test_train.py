"""Training on activations whose causes are known, interrupted and not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ft_audit.errors import DataError, SaeError
from ft_audit.kernels.jumprelu import encode
from ft_audit.sae.activation_stream import shuffled_batches
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.recipe import SaeTrainRecipe
from ft_audit.sae.train import TrainedSae, TrainProgress, train_batch_topk

Planted = Callable[..., Iterator[Tensor]]
TinyRecipe = Callable[..., SaeTrainRecipe]


class Interrupted(Exception):
    """Stands for a kill in the middle of a training."""


def batches(planted: Planted, recipe: SaeTrainRecipe) -> Iterator[Tensor]:
    return shuffled_batches(
        planted(recipe.num_train_tokens),
        batch=recipe.batch,
        buffer_tokens=recipe.buffer_tokens,
        reuse=recipe.reuse,
        seed=recipe.seed,
    )


def train(
    planted: Planted,
    recipe: SaeTrainRecipe,
    checkpoint: Path | None = None,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainedSae:
    return train_batch_topk(batches(planted, recipe), recipe, progress, checkpoint)


def quality(sae: JumpReluSae, x_TD: Tensor) -> tuple[float, float]:
    """L0 and FVU of the exported dictionary, by its own encode and decode."""
    rows = encode(x_TD, sae.weights("cpu"))
    error = (sae.decode(rows) - x_TD).square().sum()
    return rows.l0, float(error / (x_TD - x_TD.mean(0)).square().sum())


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_learns_what_the_activations_are_made_of(
    planted: Planted, tiny_recipe: TinyRecipe, compute: str
) -> None:
    trained = train(planted, tiny_recipe(compute=compute))
    sae = trained.sae
    l0, fvu = quality(sae, torch.cat(list(planted(5_000, seed=99))))
    assert fvu < 0.15
    assert 2.5 < l0 < 5.5  # k is 4: the threshold carries over what was kept
    assert not sae.apply_b_dec_to_input
    assert (sae.spec.layer, sae.spec.site, sae.spec.hook_point) == (3, "resid_post", "model.layers.3.output")
    torch.testing.assert_close(sae.w_dec_FD.norm(dim=1), torch.ones(64), rtol=1e-2, atol=0)
    assert torch.equal(sae.w_enc_DF, sae.w_enc_DF.bfloat16().float())  # what the file can hold


def test_the_same_recipe_gives_the_same_dictionary(planted: Planted, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(num_tokens=10_000)
    first, second = train(planted, recipe), train(planted, recipe)
    assert first.sae.spec == second.sae.spec
    assert train(planted, tiny_recipe(num_tokens=10_000, seed=1)).sae.spec.sha256 != first.sae.spec.sha256


def test_an_interrupted_training_ends_where_an_unbroken_one_does(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe(num_tokens=20_000, checkpoint_every_tokens=5_000)
    unbroken = train(planted, recipe)
    checkpoint = tmp_path / "c.safetensors"

    def interrupt(at: TrainProgress) -> None:
        if at.step == 50:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(planted, recipe, checkpoint, interrupt)
    seen: list[TrainProgress] = []
    resumed = train(planted, recipe, checkpoint, seen.append)
    assert resumed.sae.spec.sha256 == unbroken.sae.spec.sha256
    assert [at.stats is None for at in seen].count(True) == 40  # the checkpoint before step 50
    assert [at.step for at in seen] == list(range(1, recipe.num_steps + 1))


def test_a_checkpoint_of_another_recipe_is_refused(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "c.safetensors"
    train(planted, tiny_recipe(num_tokens=20_000), checkpoint)
    with pytest.raises(SaeError, match="another recipe; delete it"):
        train(planted, tiny_recipe(num_tokens=20_000, lr=0.02), checkpoint)


def test_a_damaged_checkpoint_is_refused(planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    checkpoint.write_bytes(b"half a file")
    with pytest.raises(SaeError, match="not a readable training checkpoint"):
        train(planted, tiny_recipe(num_tokens=20_000), checkpoint)


def test_progress_tells_how_it_goes(planted: Planted, tiny_recipe: TinyRecipe) -> None:
    seen: list[TrainProgress] = []
    recipe = tiny_recipe(num_tokens=20_000)
    train(planted, recipe, progress=seen.append)
    assert len(seen) == recipe.num_steps
    last = seen[-1]
    assert (last.step, last.num_tokens, last.seconds_left) == (recipe.num_steps, 19_000, 0.0)
    assert last.tokens_per_second > 0
    assert last.stats is not None
    assert last.stats.l0 == pytest.approx(4, abs=0.1)
    assert seen[0].stats is not None
    assert last.stats.fvu < seen[0].stats.fvu


def test_too_little_text_is_an_error(planted: Planted, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(num_tokens=20_000)
    with pytest.raises(DataError, match=r"gave 9000 training tokens.*lower num_tokens or add text"):
        train_batch_topk(batches(planted, tiny_recipe(num_tokens=9_500)), recipe, lambda _: None)
    with pytest.raises(DataError, match="no full batch of 250 tokens"):
        train_batch_topk(iter(()), recipe, lambda _: None)
