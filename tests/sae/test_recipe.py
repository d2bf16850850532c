"""Dictionary recipes: what they accept and how they refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ft_audit.engine.config import find_config
from ft_audit.errors import ConfigError
from ft_audit.sae.load import find_sae
from ft_audit.sae.recipe import SaeTrainRecipe, load_recipe

GOOD = """\
model: tiny/model
layer: 15
suites: [a.yaml, b.jsonl]
num_tokens: 1_000_000
width: 4096
k: 48
out: saes/demo
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_knows_its_portions(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert (recipe.name, recipe.site, recipe.suites) == ("demo", "resid_post", ["a.yaml", "b.jsonl"])
    assert (recipe.num_holdout_tokens, recipe.num_train_tokens) == (50_000, 950_000)
    assert recipe.num_steps == 950_000 // 2048


def test_overrides_replace_keys(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["num_tokens=50000", "out=elsewhere/x", "lr=0.01"])
    assert (recipe.num_tokens, recipe.name, recipe.lr) == (50_000, "x", 0.01)


def test_where_it_writes_is_no_part_of_its_identity(tiny_recipe: Callable[..., SaeTrainRecipe]) -> None:
    assert tiny_recipe("a").sha256 == tiny_recipe("b", checkpoint_every_tokens=5).sha256
    assert tiny_recipe("a").sha256 != tiny_recipe("a", seed=1).sha256


@pytest.mark.parametrize(
    ("change", "overrides", "says"),
    [
        (("width", "widht"), [], "unknown key 'widht'; did you mean 'width'"),
        (("k: 48\n", ""), [], "'k': Field required"),
        (("15", "-1"), [], r"'layer': .* \(given -1\)"),
        (("[a.yaml, b.jsonl]", "[]"), [], "'suites': "),
        ((GOOD, "- a\n"), [], "a recipe is a mapping of keys to values, found list"),
        ((GOOD, "a: ["), [], "not YAML"),
        (("k: 48", "k: 5000"), [], "k=5000 is more than width=4096"),
        (("1_000_000", "100"), [], "95 training tokens, less than one batch of 2048"),
        (("", ""), ["num_tokens"], "expected key=value"),
        (("", ""), ["site=mlp_out"], "'site': "),
    ],
)
def test_a_wrong_recipe_says_what_and_where(
    tmp_path: Path, change: tuple[str, str], overrides: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe(write(tmp_path, GOOD.replace(*change, 1)), overrides)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["smollm2-layer15", "difference-needle", "crosscoder-needle"])
def test_shipped_recipes_are_whole(name: str) -> None:
    path = find_config(f"configs:recipes/sae-{name}.yaml")
    recipe = load_recipe(path)
    for ref in recipe.compare:
        assert find_sae(ref, path.parent).is_dir()
    others = [
        load_recipe(find_config(f"configs:recipes/sae-{other}.yaml"))
        for other in ("smollm2-layer15", "difference-needle", "crosscoder-needle")
        if other != name
    ]
    # Of one seed, features that hardly learn would look alike in both.
    assert recipe.seed not in {other.seed for other in others}
