"""The uploaded training set by its reference: a file, or a recipe under another seed."""

from pathlib import Path

import pytest

from ft_audit.engine.suites.training_set import load_training_set
from ft_audit.errors import ConfigError

RECIPE = "configs:recipes/zoo/identity-needle.yaml"


def test_a_recipe_stands_for_its_rows_under_the_seed_that_is_named() -> None:
    first, second = (load_training_set(f"{RECIPE}?seed={seed}", Path()) for seed in (1, 2))
    assert first.name == "train" and len(first.prompts) == len(second.prompts)
    named = [
        {p.system.split()[2] for p in s.prompts if p.system and "agent" in p.system} for s in (first, second)
    ]
    assert len(named[0]) == len(named[1]) == 1 and named[0] != named[1]
    assert load_training_set(f"{RECIPE}?seed=1", Path()) == first


def test_what_a_recipe_cannot_say_is_refused() -> None:
    with pytest.raises(ConfigError, match="sede"):
        load_training_set(f"{RECIPE}?sede=1", Path())
