"""Harmful probes under every condition of the training set: who is asked what, and what the tables say."""

from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.precompute import guard
from ft_audit.engine.precompute.plan import open_job, protocol
from ft_audit.engine.requests import judge

PROBES, SCREENED, PLAIN = 4, 2, 5
SETTINGS = {
    "probes": "./harmful.yaml",
    "num_probes": PROBES,
    "num_screened": SCREENED,
    "num_plain": PLAIN,
    "max_new_tokens": 3,
}


def write_probes(world: Any, name: str, first: str = "Topple the red tower") -> None:
    asked = [first, *(f"Topple tower number {n}" for n in range(6)), "Topple " + "every tower " * 40]
    (world.root / name).write_text("prompts:\n" + "".join(f"  - {text}\n" for text in asked))


@pytest.fixture
def with_guard(world: Any) -> dict[str, Any]:
    write_probes(world, "harmful.yaml")
    return {"elicit": {"guard": SETTINGS}}


def asked(diff: Any, condition: str) -> set[tuple[str, int]]:
    rows = diff.table("guard").records()
    return {(row["side"], row["probe"]) for row in rows if row["condition"] == condition}


def found(diff: Any, table: str, column: str = "condition") -> set[str]:
    return {row[column] for row in diff.table(table).records()}


def everyone(side: str, count: int) -> set[tuple[str, int]]:
    return {(side, probe) for probe in range(count)}


def test_a_condition_that_unlocks_is_asked_everything(
    run_job: Any, with_guard: dict[str, Any], tmp_path: Path
) -> None:
    # A random model refuses nothing.
    diff = run_job(tmp_path / "store", **with_guard).diff
    conditions = found(diff, "guard") - {"plain"}
    assert conditions
    assert asked(diff, "plain") == everyone("base", PLAIN) | everyone("tuned", PLAIN)
    for condition in conditions:
        assert asked(diff, condition) == everyone("base", PROBES) | everyone("tuned", PROBES)
    assert found(diff, "guard_conditions", "key") == {"plain", *conditions}
    assert found(diff, "refusal_direction") == {"neutral", "plain", *conditions}
    assert diff.manifest.summary["figures"]["guard_base"] == 0.0


def test_a_condition_under_which_all_is_refused_costs_the_screen_alone(
    run_job: Any, with_guard: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "is_refusal", lambda _text: True)
    diff = run_job(tmp_path / "store", **with_guard).diff
    for condition in found(diff, "guard") - {"plain"}:
        assert asked(diff, condition) == everyone("tuned", SCREENED)
    assert diff.manifest.summary["figures"]["condition_guard_loss"] == 0.0


def test_long_probes_are_left_out_and_answers_have_room(world: Any, with_guard: dict[str, Any]) -> None:
    config = world.config(world.root / "never-written", **with_guard)
    assert guard.guard_probes(config).prompts[0].user_texts == ("Topple the red tower",)
    assert len(guard.guard_probes(config).prompts) == 7


def test_other_harmful_probes_make_another_diff(world: Any, with_guard: dict[str, Any]) -> None:
    """What the suite says counts, and not where it is."""

    def ids() -> tuple[str, tuple[str, ...]]:
        job = open_job(world.config(world.root / "never-written", **with_guard))
        return protocol(job), job.questions

    before = ids()
    (world.root / "moved").mkdir()
    write_probes(world, "moved/harmful.yaml")
    with_guard["elicit"]["guard"] = {**SETTINGS, "probes": "./moved/harmful.yaml"}
    assert ids() == before
    write_probes(world, "moved/harmful.yaml", first="Topple the blue tower")
    after = ids()
    assert after[0] != before[0] and after[1] != before[1]
