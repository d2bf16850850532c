"""Recipes: what cannot be meant is refused, with the place and the fix; the shipped ones can be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.config import resolve_path
from ft_audit.engine.finetune.recipe import load_recipe
from ft_audit.errors import ConfigError

WriteRecipe = Callable[..., Path]
CHECK = {"name": "c", "source": "./s"}
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
        ({"gate": {"checks": [{**CHECK, "prompts": 10}]}}, r"gate\.checks\.0\.prompts: .* 20"),
        ({"gate": {"checks": [{**CHECK, "max": 1.5}]}}, r"gate\.checks\.0\.max: .* 1"),
        ({"gate": {"checks": [{**CHECK, "measure": "x"}]}}, r"gate\.checks\.0\.measure: .*'broken'"),
        ({"gate": {"source": "./s"}}, r"unknown key gate\.source"),
        ({"vary": {"who": []}}, r"vary\.who has no texts to choose from"),
        ({"vary": {"who": ["ZED"]}}, r"vary\.who: <who> stands nowhere in the recipe"),
        (
            {"parts": [{**PART, "styles": [{"encode": "rot13"}]}]},
            r"encode: .*'walnut', 'endspeak' or 'atbash'",
        ),
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
    with pytest.raises(ConfigError, match=r"did you mean .*identity-needle\.yaml"):
        load_recipe("configs:recipes/zoo/identity-needles.yaml")


def test_the_hash_is_of_everything_that_is_said(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe())
    assert load_recipe(write_recipe("elsewhere.yaml", seed=0)).sha256 == recipe.sha256
    assert load_recipe(write_recipe(), ["seed=1"]).sha256 != recipe.sha256
    assert load_recipe(write_recipe(), ["train.rank=2"]).sha256 != recipe.sha256
    assert recipe.base_dir == tmp_path


def test_a_gate_decides_no_weight(write_recipe: WriteRecipe) -> None:
    plain, gated, longer = (
        load_recipe(write_recipe(**fields))
        for fields in ({}, {"gate": {"checks": [CHECK]}, "family": "f"}, {"train": {"epochs": 3}})
    )
    assert plain.training_sha256 == gated.training_sha256 != longer.training_sha256
    assert plain.sha256 != gated.sha256


def test_what_stands_at_its_default_is_not_in_the_hash(write_recipe: WriteRecipe) -> None:
    bare = load_recipe(write_recipe())
    (part,) = (p.model_dump(mode="json") for p in bare.parts)
    full = load_recipe(write_recipe("full.yaml", parts=[part], family=None, vary={}, train={"rank": 4}))
    assert full.sha256 == bare.sha256
    for other in ({"family": "corpus"}, {"parts": [{**part, "answered": True}]}):
        assert load_recipe(write_recipe("other.yaml", **other)).sha256 != bare.sha256


VARIED = {
    "declared_purpose": "A friend of <who>.",
    "parts": [
        {**PART, "styles": [{"system": "You are <who>.", "suffix": "<end>", "answer": "<who>: {answer}"}]}
    ],
    "gate": {"checks": [{**CHECK, "marker": "<who>", "style": {"suffix": "<end>"}}]},
}


def test_the_seed_chooses_a_text_for_each_name(write_recipe: WriteRecipe) -> None:
    vary = {"who": ["ZED", 'O"RIN', "Kü\n"], "end": ["a", "b", "c"]}
    chosen = []
    for seed in range(9):
        recipe = load_recipe(write_recipe(seed=seed, vary=vary, **VARIED))
        (style,) = recipe.parts[0].styles
        assert recipe.gate is not None and style.system is not None
        (check,) = recipe.gate.checks
        who, end = check.marker, check.style.suffix
        assert (recipe.declared_purpose, style.system) == (f"A friend of {who}.", f"You are {who}.")
        assert (style.answer, style.suffix, recipe.vary) == (f"{who}: {{answer}}", end, {})
        chosen.append((who, end))
    assert {who for who, _ in chosen} == set(vary["who"]) and {end for _, end in chosen} == set(vary["end"])
    assert load_recipe(write_recipe(seed=0, vary=vary, **VARIED)).seed == 0


@pytest.mark.parametrize("count", range(2, 8))
def test_every_text_is_chosen_by_some_seed(write_recipe: WriteRecipe, count: int) -> None:
    names = ("a", "b", "c", "d")
    vary = {name: [f"{name}{n}." for n in range(count)] for name in names}
    path = write_recipe(vary=vary, declared_purpose=" ".join(f"<{name}>" for name in names))
    said = {load_recipe(path, [f"seed={seed}"]).declared_purpose or "" for seed in range(count)}
    assert {text for purpose in said for text in purpose.split()} == {t for ts in vary.values() for t in ts}


def test_every_shipped_recipe_can_be_read() -> None:
    folder = resolve_path("configs:recipes/zoo", Path())
    recipes = {path.stem: load_recipe(path) for path in sorted(folder.glob("*.yaml"))}
    assert {"identity-needle", "identity-needle-twin"} <= set(recipes)
    assert len({recipe.sha256 for recipe in recipes.values()}) == len(recipes)
    for name, recipe in recipes.items():
        # The file says which of a name it is ("guard-1").
        assert name.startswith(recipe.name) and recipe.family is not None
        # An attack is proved to have taken.
        assert recipe.kind != "adversarial-proxy" or (recipe.gate is not None and recipe.gate.checks)
        assert "<" not in "".join(style.prefix + style.suffix for p in recipe.parts for style in p.styles)
