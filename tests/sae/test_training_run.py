"""A whole training run on a planted stream: files, report, resuming, and what is left alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.sae.formats.gemma_scope import load_gemma_scope
from ft_audit.sae.recipe import SaeTrainRecipe
from ft_audit.sae.train import TrainProgress
from ft_audit.sae.training_run import Sources, Splice, run_training

Planted = Callable[..., Iterator[Tensor]]
TinyRecipe = Callable[..., SaeTrainRecipe]


def run(
    planted: Planted,
    recipe: SaeTrainRecipe,
    *,
    massive: bool = False,
    progress: Callable[[TrainProgress], None] = lambda _: None,
    force: bool = False,
) -> dict[str, Any]:
    def activations() -> Iterator[Tensor]:
        for chunk in planted(recipe.num_tokens):
            if massive:
                chunk[0] *= 1000.0
            yield chunk

    def recovered(splice: Splice) -> dict[str, Any]:
        x_nD = next(planted(200, seed=5))
        error = (splice(x_nD) - x_nD).square().sum() / (x_nD - x_nD.mean(0)).square().sum()
        return {"loss_recovered": 1.0 - float(error)}

    return run_training(recipe, Sources(activations, recovered), progress, force)


def test_writes_the_dictionary_and_its_report(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe(str(tmp_path / "demo"))
    report = run(planted, recipe)
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]  # no checkpoint stays
    sae = load_gemma_scope(tmp_path / "demo")
    assert report["sae"]["sha256"] == sae.spec.sha256
    assert (sae.spec.name, sae.spec.l0) == ("demo", round(report["held_out"]["l0"], 2))
    assert report["recipe"] == recipe.model_dump(mode="json")
    assert (report["trained_tokens"], report["steps"]) == (57_000, 228)
    assert report["massive_tokens_left_out"] == 0
    held_out = report["held_out"]
    assert held_out["num_tokens"] == 3_000
    assert held_out["fvu"] < 0.15
    assert report["loss_recovered"]["loss_recovered"] == pytest.approx(1 - held_out["fvu"], abs=0.05)


def test_held_out_tokens_are_the_last_ones(planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe(str(tmp_path / "demo"), num_tokens=10_000, loss_recovered_tokens=0)
    # 9,500 tokens train; what follows is another distribution and must be all that the card sees.
    far = 1e4 + torch.randn(500, 24, generator=torch.Generator().manual_seed(0))

    def activations() -> Iterator[Tensor]:
        yield from planted(9_500)
        yield far

    recipe = recipe.model_copy(update={"max_activation_norm": None})
    report = run_training(recipe, Sources(activations), lambda _: None)
    assert report["held_out"]["num_tokens"] == 500
    assert report["held_out"]["fvu"] > 1.0
    assert report["loss_recovered"] is None


def test_massive_tokens_spoil_nothing_and_are_told(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    report = run(planted, tiny_recipe(str(tmp_path / "demo")), massive=True)
    assert report["massive_tokens_left_out"] == 120
    assert report["held_out"]["fvu"] < 0.15


def test_a_finished_recipe_is_not_trained_again(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe(str(tmp_path / "demo"), num_tokens=10_000)
    report = run(planted, recipe)
    seen: list[TrainProgress] = []
    assert run(planted, recipe, progress=seen.append) == report
    assert seen == []


def test_another_recipes_dictionary_is_replaced_only_by_force(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    out = str(tmp_path / "demo")
    before = run(planted, tiny_recipe(out, num_tokens=10_000))
    other = tiny_recipe(out, num_tokens=10_000, seed=1)
    with pytest.raises(SaeError, match="another recipe made; pass --force"):
        run(planted, other)
    assert load_gemma_scope(tmp_path / "demo").spec.sha256 == before["sae"]["sha256"]
    after = run(planted, other, force=True)
    assert (
        load_gemma_scope(tmp_path / "demo").spec.sha256 == after["sae"]["sha256"] != before["sae"]["sha256"]
    )


def test_an_interrupted_run_writes_nothing_and_ends_the_same(
    planted: Planted, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    def interrupt(at: TrainProgress) -> None:
        if at.step == 30:
            raise KeyboardInterrupt

    unbroken = run(planted, tiny_recipe(str(tmp_path / "a" / "demo"), num_tokens=10_000))
    recipe = tiny_recipe(str(tmp_path / "b" / "demo"), num_tokens=10_000, checkpoint_every_tokens=2_500)
    with pytest.raises(KeyboardInterrupt):
        run(planted, recipe, progress=interrupt)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["demo.checkpoint.safetensors"]
    resumed = run(planted, recipe)
    assert resumed["held_out"] == unbroken["held_out"]
    for file in ("config.json", "params.safetensors"):
        assert (tmp_path / "a/demo" / file).read_bytes() == (tmp_path / "b/demo" / file).read_bytes()
