"""What `labels show` says: every label beside its reliability, and nothing in it can act on a terminal."""

import json
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.engine.store import LabelText, TokenEffect


@pytest.fixture
def world(planted: Any, tmp_path: Path) -> Any:
    """A planted diff whose labels were scored by their letters; a feature has only its neighbour's."""
    world = planted.make_world(tmp_path)
    world.add_labels(planted.right_labels()[:2])
    hostile = "\x1b[2J\u202e" + "x" * 900
    world.labels.add([LabelText(2, "described", "evil\x1b[31m", "d", hostile)])
    world.labels.add([TokenEffect(0, " deck\n", 1.5, "b" * 64), TokenEffect(0, " bread", -0.5, "b" * 64)])
    assert cli.main(["labels", "score", str(world.path), "--no-progress"]) == 0
    return world


def test_every_label_stands_beside_its_reliability(
    world: Any, planted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["labels", "score", str(world.path), "--no-progress"]) == 0
    scored = capsys.readouterr().out
    assert "planted: 6 features, 3 labels, 0 scores" in scored and "neuronpedia/lexical: mean 0." in scored
    assert cli.main(["labels", "show", str(world.path)]) == 0
    first, *_, last = capsys.readouterr().out.split("\n\n")
    assert "feature 0 of planted, on 0.73% of the tokens in base" in first
    assert f"“{planted.right_labels()[0]}”" in first and "n = 40; 0.5 is chance" in first
    assert "promotes “ deck↵”" in first and "suppresses “ bread”" in first
    # Its neighbour 0 is the only one with a label.
    assert "feature 5" in last and "no label" in last and "near feature 0, cosine 0.60, trust 0." in last


def test_a_hostile_label_is_shown_and_does_nothing(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["labels", "show", str(world.path), "--features", "2"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    assert "“[ESC][2J[RLO]xxx" in out and "more characters]”" in out and len(out) < 1200


def test_json_holds_the_whole_text_and_the_rates(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["labels", "show", str(world.path), "--features", "2", "--json"]) == 0
    (feature,) = json.loads(capsys.readouterr().out)["features"]
    assert len(feature["labels"][0]["text"]) == 905 and feature["rate_base"] == feature["rate_tuned"] > 0
    assert feature["labels"][0]["reliability"][0]["interval"] == "Newcombe 2006, method 5"
