"""The rebuild of what the demo ships: it replaces a candidate whole, and refuses to run elsewhere."""

from pathlib import Path

import pytest

from ft_audit.benchmarks.demo_train import BANK, BASES, CANDIDATE_RECIPES, DICTIONARY, main, replace

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_recipes_it_names_are_there() -> None:
    recipes = [*BASES, *CANDIDATE_RECIPES.values()]
    named = [DICTIONARY, BANK, *(f"recipes/zoo/{name}.yaml" for name in recipes)]
    assert [name for name in named if not (CONFIGS / name).is_file()] == []


def test_a_candidate_is_replaced_whole(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for folder, names in ((new, ("adapter_model.safetensors", "train.jsonl")), (old, ("stale.json",))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    replace(new, old, without=("train.jsonl",))
    assert [path.name for path in old.iterdir()] == ["adapter_model.safetensors"]


def test_outside_a_checkout_it_says_where_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == 1
    assert "in a checkout of ft-audit" in capsys.readouterr().err
