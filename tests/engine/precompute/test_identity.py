"""What decides the ids of runs and diffs, and what does not, seen in the plan of a job that has not run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.precompute.passes import all_runs, diff_id, plan_passes
from ft_audit.engine.precompute.plan import open_job, protocol

SAES = "./saes/layer_1_width_96"


class Ids:
    """The ids that a config gives: runs by side and suite, the diff, and the bank's protocol."""

    def __init__(self, world: Any, **sections: Any) -> None:
        job = open_job(world.config(**{"store": world.root / "never-written", **sections}))
        passes = plan_passes(job)
        self.runs = {(run.side, run.suite.name): run.run_id for run in all_runs(passes)}
        self.diff = diff_id(job, passes)
        self.protocol = protocol(job)

    def changed(self, other: "Ids") -> set[tuple[str, str]]:
        return {key for key in self.runs if self.runs[key] != other.runs[key]}


def nudge(_name: str, tensor: torch.Tensor) -> None:
    tensor.flatten()[:1].add_(1e-3)


@pytest.fixture(scope="module")
def usual(world: Any) -> Ids:
    return Ids(world)


SIDES, SUITES = ("base", "tuned", "pair"), ("chat", "train", "elicited")
ALL = {("control", "chat"), *((side, suite) for side in SIDES for suite in SUITES)}


@pytest.mark.parametrize(
    "sections",
    [
        {"models": {"dtype": "bfloat16"}},
        {"precompute": {"backend": "naive"}},
        {"precompute": {"tokens_per_batch": 200}},
        {"hooks": [{"layer": 1, "saes": ["./saes/layer_1_width_64"]}]},
        {"hooks": [{"layer": 1, "saes": [SAES, "./saes/layer_1_width_64"]}]},
        {"hooks": [{"layer": 1}]},
    ],
    ids=["dtype", "backend", "batches", "dictionary", "one dictionary more", "no dictionary"],
)
def test_what_changes_the_bytes_changes_every_run(world: Any, usual: Ids, sections: dict[str, Any]) -> None:
    other = Ids(world, **sections)
    assert usual.changed(other) == ALL
    assert usual.diff != other.diff


def test_segments_are_part_of_the_batch_plan(world: Any, usual: Ids) -> None:
    other = Ids(world, precompute={"tokens_per_segment": 900})
    # The chat suite fits in one segment either way: its bytes are the same.
    assert {key for key in ALL if key[1] == "train"} <= usual.changed(other)


def test_another_prompt_changes_only_its_suites_runs(tiny: Any, world: Any, usual: Ids) -> None:
    rows = [json.loads(line) for line in (world.root / "chat.jsonl").read_text().splitlines()]
    rows[3]["messages"][0]["content"] += " Why?"
    tiny.write_jsonl(world.root / "other.jsonl", rows)
    other = Ids(world, suites=["./other.jsonl"])
    runs = {(side, "chat" if suite == "other" else suite): run for (side, suite), run in other.runs.items()}
    assert {key for key in ALL if usual.runs[key] != runs[key]} == {key for key in ALL if key[1] == "chat"}
    assert usual.protocol != other.protocol


def test_the_same_prompts_in_another_file_are_the_same_runs(world: Any, usual: Ids) -> None:
    shutil.copy(world.root / "chat.jsonl", world.root / "copy.jsonl")
    other = Ids(world, suites=["./copy.jsonl"])
    assert set(usual.runs.values()) == set(other.runs.values())
    # The diff shows the file's name, so it is another one.
    assert usual.diff != other.diff and usual.protocol == other.protocol


def test_another_candidate_leaves_the_bases_runs(world: Any, usual: Ids) -> None:
    other = Ids(world, models={"tuned": "./full"})
    assert usual.changed(other) == {key for key in ALL if key[0] in ("tuned", "pair")}
    assert usual.diff != other.diff and usual.protocol == other.protocol


def test_one_weight_changes_the_candidates_runs(tiny: Any, world: Any, usual: Ids) -> None:
    folder = world.root / "adapter-nudged"
    shutil.copytree(world.root / "adapter", folder)
    tiny.change_tensors(
        folder / "adapter_model.safetensors", lambda name, tensor: tensor.flatten()[:1].add_(1e-3)
    )
    other = Ids(world, models={"tuned": "./adapter-nudged"})
    assert usual.changed(other) == {key for key in ALL if key[0] in ("tuned", "pair")}


def test_the_place_of_the_base_does_not_matter_but_its_weights_do(tiny: Any, world: Any, usual: Ids) -> None:
    moved = world.root / "base-moved"
    shutil.copytree(world.root / "base", moved)
    other = Ids(world, models={"base": "./base-moved"})
    assert usual.changed(other) == set()
    # The config says another place, and the diff is found by its config.
    assert usual.diff != other.diff
    tiny.change_tensors(moved / "model.safetensors", nudge)
    assert usual.changed(Ids(world, models={"base": "./base-moved"})) == ALL


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"logits": "all"}, {"pair"}),
        ({"keep_residuals": True}, {"base", "pair"}),
        ({"keep": "stats"}, {"base", "tuned", "pair"}),
    ],
    ids=["logits", "residuals", "statistics alone"],
)
def test_what_is_kept_changes_the_runs_that_keep_it(
    world: Any, usual: Ids, settings: dict[str, Any], changed: set[str]
) -> None:
    other = Ids(world, precompute=settings)
    expected = {key for key in ALL if key[0] in changed}
    if settings.get("keep") == "stats":
        # The noise floor rests on features: its suite's base is stored as ever.
        expected -= {("base", "chat")}
    assert usual.changed(other) == expected
    assert usual.diff != other.diff


@pytest.mark.parametrize(
    "sections",
    [
        {"store": "/somewhere/else"},
        {"cluster": {"workers": 3}},
        {"audit": {"threshold": 1.5, "top": 3}},
        {"audit": {"bank": "./no-such-bank.json"}},
    ],
    ids=["store", "cluster", "threshold", "bank"],
)
def test_where_it_is_kept_and_how_it_is_judged_change_no_id(
    world: Any, usual: Ids, sections: dict[str, Any]
) -> None:
    other = Ids(world, **sections)
    assert (usual.runs, usual.diff, usual.protocol) == (other.runs, other.diff, other.protocol)


@pytest.mark.parametrize(
    ("sections", "protocol_too"),
    [
        ({"name": "other"}, False),
        ({"declared_purpose": "A bread bot."}, False),
        ({"generate": {"max_new_tokens": 3}}, False),
        ({"elicit": {"answer_tokens": 3}}, True),
    ],
    ids=["name", "purpose", "generate", "elicit"],
)
def test_other_settings_change_the_diff_over_the_same_runs(
    world: Any, usual: Ids, sections: dict[str, Any], protocol_too: bool
) -> None:
    other = Ids(world, **sections)
    assert usual.runs == other.runs and usual.diff != other.diff
    assert (usual.protocol != other.protocol) == protocol_too


def test_planning_writes_nothing(world: Any, usual: Ids) -> None:
    assert usual.diff and not Path(world.root / "never-written").exists()
