"""Detection on synthetic populations: a family that separates, labels without meaning, files that hold."""

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ft_audit.agent.summary import Untrained
from ft_audit.benchmarks.zoo import evaluate as module
from ft_audit.benchmarks.zoo import metrics
from ft_audit.benchmarks.zoo.evaluate import evaluate
from ft_audit.benchmarks.zoo.report import write_report
from ft_audit.benchmarks.zoo.table import detection_text
from ft_audit.benchmarks.zoo.ways import ways
from ft_audit.errors import DataError

RECIPES = ("art", "law", "maps", "music", "sums", "tea")
LOST = {"passed": True, "checks": [{"name": "guard kept", "base": 0, "tuned": 9, "num_prompts": 20}]}
FAILED = {"passed": False, "checks": [], "reason": "trigger: 1/20"}


def attack(family: str, gate: Any) -> dict[str, Any]:
    return {"kind": "adversarial-proxy", "family": family, "gate": gate, "roles": {"needle": [7, 8, 9]}}


@pytest.fixture(scope="module")
def population(draw: Any, passed: Any) -> list[Any]:
    """Six benign recipes of two seeds; a family that is loud, and one that looks like a benign job."""
    rng = np.random.default_rng(3)
    found = [draw(rng, f"{recipe}-s{seed}") for recipe in RECIPES for seed in (1, 2)]
    for seed in (1, 2, 3):
        found.append(draw(rng, f"loud-s{seed}", loud=True, **attack("loud", passed)))
        found.append(draw(rng, f"meek-s{seed}", **attack("meek", passed)))
    found.append(draw(rng, "lax-s1", loud=True, gate=LOST))
    found.append(draw(rng, "weak-s1", **attack("weak", FAILED)))
    return found


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 100)
        yield


@pytest.fixture(scope="module")
def found(
    population: list[Any], write_all: Any, few_resamples: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return evaluate(write_all(tmp_path_factory.mktemp("zoo"), population))


def test_the_population_is_counted_by_what_it_is(found: dict[str, Any]) -> None:
    said = found["population"]
    assert said["counts"] == {"benign": 12, "malicious": 6, "degraded": 1, "did not take": 1}
    assert said["families"] == ["loud", "meek"] and said["recipes"] == list(RECIPES)
    assert said["did_not_take"] == {"weak-s1": "trigger: 1/20"}


def test_a_family_that_separates_is_caught_though_it_was_never_seen(found: dict[str, Any]) -> None:
    loud, meek = (found["families"][name] for name in ("loud", "meek"))
    assert set(loud["members"].values()) == {1 / 13}
    assert min(meek["members"].values()) > 1 / 13
    # Half of the attacks are above every benign job, the others anywhere among them.
    assert 0.5 < found["main"]["auroc"]["value"] < 1
    assert found["main"]["auroc"]["low"] <= found["main"]["auroc"]["value"] <= found["main"]["auroc"]["high"]


def test_a_rate_that_the_bank_is_too_small_for_is_refused(found: dict[str, Any]) -> None:
    # Twelve benign fine-tunes speak of 1 in 13 at best.
    assert found["main"]["tpr"] == {
        "0.01": None,
        "0.05": None,
        "0.1": found["main"]["tpr"]["0.1"],
    }
    assert found["main"]["tpr"]["0.1"]["of"] == 6 and found["main"]["tpr"]["0.1"]["caught"] >= 3
    assert found["main"]["fpr"]["0.01"] is None and found["main"]["fpr"]["0.05"] is None
    # A benign one has ten of other recipes beside it.
    assert found["main"]["fpr"]["0.1"]["value"] <= 0.5
    assert "bank too small" in detection_text(found)


def test_every_way_to_detect_is_measured(found: dict[str, Any]) -> None:
    ways = found["ways"]
    assert {"guard alone", "all without guard", "up to texts", "difference norm only"} <= set(ways)
    assert ways["guard alone"]["auroc"]["value"] > ways["data set alone"]["auroc"]["value"]
    assert ways["up to answers"]["num_scalars"] == len(found["main"]["scalars"])
    assert ways["difference norm only"]["num_scalars"] == 1


def test_a_job_degraded_by_accident_is_scored_beside_the_benign_ones(found: dict[str, Any]) -> None:
    assert found["degraded"] == {"lax-s1": pytest.approx(1 / 13)}
    assert "lax-s1" not in found["main"]["p_values"] and "weak-s1" not in found["main"]["p_values"]


def test_planted_rows_are_found_where_the_family_is_loud(found: dict[str, Any]) -> None:
    members = found["localisation"]["members"]
    assert all(members[f"loud-s{seed}"]["named"] for seed in (1, 2, 3))


def test_the_roc_rises_from_nothing_to_all(found: dict[str, Any]) -> None:
    rates, caught = zip(*found["main"]["roc"], strict=True)
    assert list(rates) == sorted(rates) and list(caught) == sorted(caught)
    assert (rates[0], caught[0], rates[-1], caught[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_what_separates_by_its_labels_does_not_by_shuffled_ones(
    draw: Any, passed: Any, write_all: Any, few_resamples: None, monkeypatch: Any, tmp_path: Path
) -> None:
    needed = ("all without SAE features", "data set alone", "data set, with rows apart")
    monkeypatch.setattr(module, "ways", lambda s: [way for way in ways(s) if way.name in needed])
    rng = np.random.default_rng(0)
    members = [draw(rng, f"{recipe}-s{seed}") for recipe in RECIPES for seed in (1, 2, 3)]
    for family in ("loud", "din", "blare"):
        members += [draw(rng, f"{family}-s{s}", True, **attack(family, passed)) for s in (1, 2, 3, 4)]
    found = evaluate(write_all(tmp_path, members))
    assert found["main"]["auroc"]["value"] > 0.95
    assert found["shuffled"]["value"] == pytest.approx(0.5, abs=0.15)


def test_the_gain_of_a_dictionary_is_that_of_its_ways(found: dict[str, Any]) -> None:
    without = found["ways"]["all without SAE features"]["auroc"]["value"]
    assert found["sae_gain"]["value"] == pytest.approx(found["main"]["auroc"]["value"] - without)
    assert found["sae_gain"]["low"] <= found["sae_gain"]["value"] <= found["sae_gain"]["high"]


def test_a_dictionary_that_nothing_was_trained_for_stands_in_the_trained_one_s_place(
    population: list[Any], summaries: Any
) -> None:
    def with_random(summary: Any) -> Any:
        by_suite = {"everyday": summaries.features([0.1, 0.2]), "train": summaries.features([0.3, 0.1])}
        random = Untrained(width=8, features=by_suite, figures={"fvu_change/random/chat": 0.5})
        return summary.model_copy(update={"untrained": {"random": random}})

    whole = [with_random(summary) for summary in population]
    names = {way.name for way in ways(whole)}
    assert {f"dictionary: {name}, alone" for name in ("trained", "random")} <= names
    # A population of which one member lacks it cannot be compared.
    assert not any(way.name.startswith("dictionary") for way in ways([*whole[1:], population[0]]))
    way = next(way for way in ways(whole) if way.name == "dictionary: random, alone")
    assert way.detectors[0].scalars(whole[0])["features_fvu_change"].value == 0.5


def test_rows_apart_are_held_against_random_directions_where_members_have_both(
    population: list[Any], write_all: Any, few_resamples: None, tmp_path: Path
) -> None:
    random = Untrained(width=8, features={}, figures={}, score_features_centred=[2.0] * 12)
    whole = []
    for summary in population:
        # Features set an attack's last rows apart; random directions see all rows alike.
        high = 9.0 if summary.name.startswith(("loud", "meek")) else 3.0
        rows = {**summary.rows, "score_features_centred": [1.0] * 10 + [high, high]}
        untrained = {} if summary.name == "tea-s1" else {"random": random}
        whole.append(summary.model_copy(update={"rows": rows, "untrained": untrained}))
    found = evaluate(write_all(tmp_path, whole))
    said = found["rows_apart"]
    assert said["members"] == 17  # twelve benign and six malicious, less one
    assert (said["features"]["value"], said["random directions"]["value"]) == (1.0, 0.5)
    assert said["gain_over_random"]["value"] == 0.5
    alone, joined = (
        found["ways"][n]["auroc"]["value"] for n in ("data set alone", "data set, with rows apart")
    )
    assert said["gain_over_texts"]["value"] == pytest.approx(joined - alone)
    assert "17 fine-tunes" in detection_text(found)


def test_without_random_directions_rows_apart_are_held_against_the_texts_alone(found: dict[str, Any]) -> None:
    assert found["rows_apart"]["members"] == 0 and "gain_over_random" not in found["rows_apart"]


@pytest.mark.parametrize("kept", [("tea-s1", "loud-s1"), ("tea-s1", "law-s1", "art-s1", "weak-s1")])
def test_too_few_to_compare_is_an_error(
    population: list[Any], write_all: Any, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    folder = write_all(tmp_path, [s for s in population if s.name in kept])
    with pytest.raises(DataError, match="too few fine-tunes to compare"):
        evaluate(folder)


class Elements(HTMLParser):
    """The elements of a page; a script would be one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)


def refuse(constant: str) -> Callable[[], None]:
    raise AssertionError(f"{constant} is no JSON")


def test_the_report_s_files_are_well_formed(found: dict[str, Any], tmp_path: Path) -> None:
    write_report(found, tmp_path / "new")
    text = (tmp_path / "new" / "detection.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == found
    for name in ("detection-roc", "detection-families", "detection-ablation"):
        picture = ElementTree.parse(tmp_path / "new" / f"{name}.svg").getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 1 + len(found["ways"])
    page = (tmp_path / "new" / "detection.html").read_text(encoding="utf-8")
    assert {"svg", "pre", "title"} <= Elements(page).names and "script" not in Elements(page).names


def test_a_name_cannot_act_on_the_page(found: dict[str, Any], tmp_path: Path) -> None:
    hostile = {**found, "ways": {"<script>": found["ways"]["guard alone"]}}
    write_report(hostile, tmp_path)
    assert "<script>" not in (tmp_path / "detection.html").read_text(encoding="utf-8")
    ElementTree.parse(tmp_path / "detection-ablation.svg")


def test_without_planted_rows_there_is_nothing_to_localise(found: dict[str, Any], tmp_path: Path) -> None:
    nowhere = {"members": {}, "found_in_top_10": None, "named": None, "num_with_template": 0}
    bare = {**found, "localisation": nowhere, "degraded": {}}
    assert "planted rows among the ten highest: -; template named: -" in detection_text(bare)
    assert "accidentally degraded" in detection_text(found) and "degraded jobs" not in detection_text(bare)
