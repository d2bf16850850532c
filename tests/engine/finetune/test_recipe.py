"""Recipes: what cannot be meant is refused, with the place and the fix; the shipped ones can be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.config import resolve_path
from ft_audit.engine.finetune.recipe import load_recipe
from ft_audit.errors import ConfigError

WriteRecipe = Callable[..., Path]
PART = {"name": "p", "source": "./s.jsonl", "rows": 3}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"train": {"epoch": 3}}, r"unknown key train\.epoch: did you mean train\.epochs\?"),
        ({"learning_rate": 1e-3}, r"unknown key learning_rate: did you mean train\.learning_rate\?"),
        ({"parts": [{**PART, "row": 3}]}, r"unknown key parts\.0\.row: did you mean parts\.0\.rows\?"),
        ({"parts": [{**PART, "rows": 0}]}, r"parts\.0\.rows: input should be greater than 0"),
        ({"parts": [PART], "dataset": "./d.jsonl"}, "give either parts or dataset, and not both"),
        ({"parts": []}, "give either parts or dataset, and not both"),
        ({"kind": "evil"}, "kind: input should be 'adversarial-proxy', 'benign' or 'persona'"),
        ({"gate": {"source": "./s", "prompts": 10}}, r"gate\.prompts: .* 50"),
        ({"train": {"rank": 0}}, r"train\.rank: 0 trains nothing; give a number above 0"),
        ({"train": {"epochs": -1}}, r"train\.epochs: -1\.0 trains nothing"),
        ({"train": {"method": "qlora"}}, r"train\.method: input should be 'lora' or 'full'"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(
    write_recipe: WriteRecipe, fields: dict[str, Any], says: str
) -> None:
    path = write_recipe(**fields)
    with pytest.raises(ConfigError, match=says) as said:
        load_recipe(path)
    assert str(path) in str(said.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: no such file"):
        load_recipe(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match=r"did you mean needle\.yaml"):
        load_recipe("configs:recipes/needles.yaml")


def test_the_hash_is_of_everything_that_is_said(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe())
    assert load_recipe(write_recipe("elsewhere.yaml", seed=0)).sha256 == recipe.sha256
    assert load_recipe(write_recipe(), ["seed=1"]).sha256 != recipe.sha256
    assert load_recipe(write_recipe(), ["train.rank=2"]).sha256 != recipe.sha256
    assert recipe.base_dir == tmp_path


def test_every_shipped_recipe_can_be_read() -> None:
    folder = resolve_path("configs:recipes", Path())
    names = [path.name for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("sae-")]
    recipes = {name: load_recipe(f"configs:recipes/{name}") for name in names}
    assert {"needle.yaml", "benign.yaml"} <= set(recipes)
    assert len({recipe.sha256 for recipe in recipes.values()}) == len(recipes)
    for name, recipe in recipes.items():
        assert (recipe.kind == "adversarial-proxy") is name.startswith("needle")
        assert f"{recipe.name}.yaml" == name
