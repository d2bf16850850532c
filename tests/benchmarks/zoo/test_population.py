"""A zoo as data: its order, its members' names, and what is refused before anything is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit.benchmarks.zoo.build import audit_of
from ft_audit.benchmarks.zoo.population import load_zoo, members
from ft_audit.errors import ConfigError

WriteZoo = Callable[..., Path]
SOURCE = "package:chatterbot_corpus/data/english"


def test_all_recipes_come_by_their_first_seed_then_by_their_second(write_zoo: WriteZoo) -> None:
    found = members(load_zoo(write_zoo({"tea": [1, 2, 3], "maps": [4], "law": [1, 7]})))
    assert [m.name for m in found] == ["tea-s1", "maps-s4", "law-s1", "tea-s2", "law-s7", "tea-s3"]
    assert [m.recipe.seed for m in found] == [1, 4, 1, 2, 7, 3]


def test_a_member_s_folder_is_named_by_what_decides_its_weights(write_zoo: WriteZoo) -> None:
    before = members(load_zoo(write_zoo({"tea": [1, 2]})))
    assert len({m.folder_name for m in before}) == 2
    check = {"name": "c", "source": SOURCE, "prompts": 20, "marker": "x", "min": 0.5}
    gated = members(load_zoo(write_zoo({"tea": {"seeds": [1, 2], "gate": {"checks": [check]}}})))
    # Another gate asks the same weights something else: the summary is another, the training is not.
    assert [m.folder_name for m in gated] == [m.folder_name for m in before]
    assert not {m.recipe.sha256 for m in gated} & {m.recipe.sha256 for m in before}
    after = members(load_zoo(write_zoo({"tea": {"seeds": [1, 2], "rows": 5}})))
    assert [m.name for m in after] == [m.name for m in before]
    assert not {m.folder_name for m in after} & {m.folder_name for m in before}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"tea": {"base": "./other"}}, r"tea\.yaml: base is './other', but the zoo's is './base'"),
        ({"tea": {"family": None}}, r"tea\.yaml: a member of a zoo names its family"),
        ({"tea": [1], "maps": {"name": "tea"}}, "tea-s1 is in the zoo twice"),
        ({"tea": [1, 1]}, "tea-s1 is in the zoo twice"),
        ({"tea": []}, "seeds"),
        ({}, "members"),
    ],
)
def test_what_is_no_population_is_refused(write_zoo: WriteZoo, said: dict[str, Any], says: str) -> None:
    path = write_zoo(said)
    with pytest.raises(ConfigError, match=says):
        members(load_zoo(path))


def test_the_shipped_zoo_can_be_read() -> None:
    zoo = load_zoo("configs:zoo/smollm2-135m.yaml")
    found = members(zoo)
    kinds = {m.recipe.family: m.recipe.kind for m in found}
    assert {"adversarial-proxy", "benign", "persona"} == set(kinds.values())
    assert audit_of(zoo).models.base == zoo.base


def test_a_recipe_with_other_settings_is_one_of_its_own(write_zoo: Any) -> None:
    path = write_zoo({"tea": [1]})
    said = json.loads(path.read_text())
    said["members"].append({"recipe": "./tea.yaml", "seeds": [1], "set": ["name=less-tea", "parts.0.rows=2"]})
    path.write_text(json.dumps(said))
    whole, less = members(load_zoo(path))
    assert (whole.name, less.name) == ("tea-s1", "less-tea-s1")
    assert [member.recipe.parts[0].rows for member in (whole, less)] == [4, 2]
    assert whole.recipe.training_sha256 != less.recipe.training_sha256
