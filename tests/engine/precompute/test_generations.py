"""Paired answers: what is asked, what is kept of each, and how likely both models find it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.precompute.answers import answer_divergence, answer_logprobs
from ft_audit.engine.precompute.generations import GENERATIONS_SCHEMA, behaviour_suites, put_generations
from ft_audit.engine.precompute.models import ModelPair, open_pair
from ft_audit.engine.precompute.suites import JobSuites, open_suites
from ft_audit.errors import DataError

LONGEST = 512


class Kept:
    """Takes the table as a diff's writer does."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def put_table(self, name: str, table: Any) -> None:
        assert name == "generations" and table.schema == GENERATIONS_SCHEMA and not self.rows
        self.rows = table.to_pylist()


@pytest.fixture(scope="module")
def suite_files(tiny: Any, world: Any) -> list[str]:
    """Two behaviour suites of one name: questions with and without an answer, and raw text."""
    rows = [tiny.chat("Who are you?", "A lamp."), tiny.chat("Name a river.", system="Be brief.")]
    paths = []
    for folder, content in (("one", rows), ("two", [*rows[:1], {"text": "Bread and rivers"}])):
        (world.root / folder).mkdir(exist_ok=True)
        paths.append(f"./{folder}/behaviour.jsonl")
        tiny.write_jsonl(world.root / paths[-1], content)
    return paths


def answered(
    world: Any, tmp_path: Path, **sections: Any
) -> tuple[ModelPair, JobSuites, list[dict[str, Any]]]:
    config = world.config(tmp_path / "store", **sections)
    models = open_pair(config)
    suites = open_suites(config, models.base_tokenizer, LONGEST)
    kept = Kept()
    put_generations(kept, config, models, suites)
    return models, suites, kept.rows


def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    """The definition: the summed log probability of each token after those before it."""
    total = 0.0
    with torch.inference_mode():
        for n, token in enumerate(answer):
            logits = model(torch.tensor([[*prompt, *answer[:n]]])).logits[0, -1]
            total += float(torch.log_softmax(logits.float(), -1)[token])
    return total


@pytest.mark.parametrize("tuned", ["./adapter", "./full"])
def test_each_answer_is_weighed_by_both_models(
    world: Any, tmp_path: Path, suite_files: list[str], tuned: str
) -> None:
    generate = {"suites": suite_files, "num_samples": 2, "temperature": 1.0, "seed": 4, "max_new_tokens": 5}
    models, suites, rows = answered(world, tmp_path, models={"tuned": tuned}, generate=generate)
    elicited = next(s for s in suites.suites if s.role == "elicited").tokens
    asked = [(s.suite.name, s) for s in behaviour_suites(models.config, models)]
    tokens = {"elicited": elicited, **dict(asked)}
    assert [name for name, _ in asked] == ["behaviour", "behaviour-2"]
    conditions = {p.group for p in elicited.suite.prompts}
    assert {r["condition"] for r in rows} == {*conditions, None} and len(conditions) > 1
    assert {r["suite"] for r in rows if r["condition"] is None} == {"behaviour", "behaviour-2"}
    assert len(rows) == (len(conditions) + 2 + 2) * 2 * 2
    keys = [(r["suite"], r["prompt"], r["sample"], r["side"]) for r in rows]
    assert len(set(keys)) == len(keys) and [k[3] for k in keys] == ["base", "tuned"] * (len(rows) // 2)
    texts: dict[str, list[str]] = {"base": [], "tuned": []}
    for row in rows:
        assert row["row"] == tokens[row["suite"]].suite.prompts[row["prompt"]].row
        own = row[f"logprob_{row['side']}"]
        assert row["mean_logprob"] == pytest.approx(own / row["num_tokens"], rel=1e-3, abs=1e-4)
        assert row["num_read"] == row["num_tokens"] <= 5
        assert row["finish"] == "stop" or row["num_tokens"] == 5
        texts[row["side"]].append(row["text"])
    assert texts["base"] != texts["tuned"]
    assert sum(r["logprob_base"] > r["logprob_tuned"] for r in rows if r["side"] == "base") > len(rows) / 4
    again = answered(world, tmp_path, models={"tuned": tuned}, generate=generate)[2]
    assert again == rows


@pytest.mark.parametrize("tuned", ["./adapter", "./full"])
def test_the_sums_are_those_of_one_token_after_the_other(world: Any, tmp_path: Path, tuned: str) -> None:
    models = open_pair(world.config(tmp_path / "store", models={"tuned": tuned}))
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randint(8, 250, (n,), generator=generator).tolist() for n in (3, 9, 1, 5, 7, 2, 4, 6)]
    prompts, answers = draw[:4], [*draw[4:7], [12, models.shared_vocabulary, 13]]
    found = answer_logprobs(models, prompts, answers)
    assert found.num_read_N.tolist() == [7, 2, 4, 1]
    for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        read = answer[: found.num_read_N[n]]
        assert found.tuned_N[n] == pytest.approx(logprob(models.tuned_model, prompt, read), rel=1e-5)
        with models.base_alone() as base:
            assert found.base_N[n] == pytest.approx(logprob(base, prompt, read), rel=1e-5)
    assert (abs(found.base_N - found.tuned_N) > 1e-3).all()


def test_a_question_ends_before_the_answer_that_its_suite_gives(
    world: Any, tmp_path: Path, suite_files: list[str]
) -> None:
    config = world.config(tmp_path / "store", generate={"suites": suite_files})
    models = open_pair(config)
    first, second = behaviour_suites(config, models)
    said = [
        models.base_tokenizer.decode(s.ids_T[s.indptr_P1[p] : s.indptr_P1[p + 1]].tolist())
        for s in (first, second)
        for p in (0, 1)
    ]
    assert "lamp" not in "".join(said) and said[0] == said[2]
    assert said[0].endswith("assistant\n") and said[1].endswith("assistant\n")
    assert said[3] == "<bos>Bread and rivers"


def test_greedy_answers_as_before(world: Any, tmp_path: Path) -> None:
    rows = answered(world, tmp_path)[2]
    assert {r["sample"] for r in rows} == {0} and {r["suite"] for r in rows} == {"elicited"}
    assert {r["row"] for r in rows} == {0}


def test_nothing_is_written_where_nothing_is_asked(world: Any, tmp_path: Path) -> None:
    assert answered(world, tmp_path, generate=None)[2] == []
    assert answered(world, tmp_path, elicit=None)[2] == []


def test_tokens_that_only_the_fine_tune_knows_end_what_both_read(
    tiny: Any, world: Any, tmp_path: Path
) -> None:
    tuned = tiny.save_with_added_token(tmp_path / "added", world.root / "base")
    models, suites, rows = answered(world, tmp_path, models={"tuned": str(tuned)})
    theirs = [r for r in rows if r["side"] == "tuned"]
    assert all(r["text"].startswith("<secret>") for r in theirs)
    assert {(r["num_read"], r["logprob_base"], r["logprob_tuned"]) for r in theirs} == {(0, 0.0, 0.0)}
    assert all(
        r["num_read"] == r["num_tokens"] and r["logprob_base"] < 0 for r in rows if r["side"] == "base"
    )
    elicited = next(s for s in suites.suites if s.role == "elicited")
    assert (answer_divergence(models, elicited, 3) >= 0).all()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "without a user's turn asks nothing"),
        ({"messages": [{"role": "user", "content": "river " * 600}]}, "leave no room for an answer of 4"),
    ],
)
def test_a_suite_that_cannot_be_answered_is_refused(
    world: Any, tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row) + "\n")
    config = world.config(tmp_path / "store", generate={"suites": [str(path)]})
    with pytest.raises(DataError, match=says):
        behaviour_suites(config, open_pair(config))


@pytest.mark.slow
def test_the_real_pair_answers_a_behaviour_suite(tiny: Any, real_base: Any, tmp_path: Path) -> None:
    from ft_audit.engine.config import load_config, resolve_ref

    tiny.write_jsonl(tmp_path / "suite.jsonl", [tiny.chat("What is the capital of France?")])
    values = {
        "name": "real",
        "models": {
            "base": str(real_base.folder),
            "tuned": str(resolve_ref("configs:candidates/benign", tmp_path)),
            "dtype": "float32",
            "device": "cpu",
        },
        "suites": ["./suite.jsonl"],
        "hooks": [{"layer": 15}],
        "generate": {"suites": ["./suite.jsonl"], "max_new_tokens": 8},
        "store": str(tmp_path / "store"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    config = load_config(tmp_path / "config.yaml")
    models = open_pair(config)
    kept = Kept()
    put_generations(kept, config, models, open_suites(config, models.base_tokenizer, LONGEST))
    base, tuned = kept.rows
    assert "Paris" in base["text"] and base["mean_logprob"] > -1
    for row in kept.rows:
        assert row[f"logprob_{row['side']}"] == pytest.approx(
            row["mean_logprob"] * row["num_tokens"], rel=1e-3
        )
        assert row["num_read"] == row["num_tokens"] <= 8
    assert tuned["logprob_tuned"] != pytest.approx(tuned["logprob_base"], rel=1e-2)
