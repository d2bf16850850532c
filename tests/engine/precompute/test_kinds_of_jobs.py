"""Jobs of other kinds: parts left out, several suites, hooks and dictionaries, other data and candidates."""

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ft_audit import cli
from ft_audit.engine.config import config_json
from ft_audit.engine.precompute.plan import open_job

HOOKS = [
    {"layer": 1, "saes": ["./saes/layer_1_width_96", "./saes/layer_1_width_64"]},
    {"layer": 3, "saes": ["./saes/layer_3_width_96"]},
]
NUM_ANSWER = 5
NOTEBOOK = Path(__file__).resolve().parents[3] / "configs" / "notebooks" / "analysis.py"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds") / "store"


@pytest.fixture(scope="module")
def bare_job(run_job: Any, store: Path) -> Any:
    """No conditions, no control and no answers; two hooks and three dictionaries."""
    return run_job(store, elicit=None, generate=None, precompute={"control": False}, hooks=HOOKS)


def test_without_elicit_rows_are_ranked_by_what_they_move(bare_job: Any) -> None:
    assert {run["suite"] for run in bare_job.report["runs"]} == {"chat", "train"}
    assert set(bare_job.diff.tables()) - {"contexts"} == {
        "agreement",
        "embedding_rows",
        "leading",
        "lens",
        "matches",
        "prompts",
        "rows",
        "weights",
    }
    rows = bare_job.diff.table("rows").records()
    centred = [row["score_features_centred"] for row in rows]
    assert all(row["score_condition"] == 0 for row in rows)
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["primary_score"])
    assert order == sorted(range(len(rows)), key=lambda i: -centred[i])
    assert bare_job.diff.manifest.summary["primary"] is None


def test_a_suite_of_one_prompt_has_no_control(run_job: Any, store: Path) -> None:
    one = store.parent / "one.jsonl"
    one.write_text(json.dumps({"messages": [{"role": "user", "content": "Hello there."}]}) + "\n")
    job = run_job(store, suites=[str(one)], elicit=None, generate=None)
    assert job.diff.manifest.summary["control_run"] is None


def test_without_a_control_there_is_no_noise_floor(bare_job: Any) -> None:
    assert bare_job.diff.manifest.summary["control_run"] is None
    stats = bare_job.diff.stats("features/layer_1_width_96/train")
    assert np.isnan(stats["aa_percentile"]).all() and np.isfinite(stats["q"]).any()


def test_every_dictionary_of_every_hook_is_there(bare_job: Any) -> None:
    names = {"layer_1_width_96": 96, "layer_1_width_64": 64, "layer_3_width_96": 96}
    run = bare_job.run("tuned", "chat")
    hooks = [(hook.layer, [sae.name for sae in hook.saes]) for hook in run.manifest.hooks]
    assert hooks == [(1, ["layer_1_width_96", "layer_1_width_64"]), (3, ["layer_3_width_96"])]
    assert set(bare_job.report["features_per_token"]) == set(names)
    for name, width in names.items():
        assert bare_job.diff.array(f"features/{name}/chat", "z").shape == (width,)
        assert max(segment.features[name][1].max() for segment in run.segments()) < width
    groups = {f"residual/resid_post/{layer}/{suite}" for layer in (1, 3) for suite in ("chat", "train")}
    assert groups <= set(bare_job.diff.groups())
    figures = bare_job.diff.manifest.summary["figures"]
    assert figures["residual_shift/resid_post/1/chat"] != figures["residual_shift/resid_post/3/chat"]


def test_dictionaries_are_held_against_each_other_and_against_the_change(bare_job: Any) -> None:
    names = ("layer_1_width_96", "layer_1_width_64", "layer_3_width_96")
    agreement = bare_job.diff.table("agreement").records()
    pairs = {(sae, other) for sae in names for other in names if sae != other}
    assert {(row["sae"], row["other"]) for row in agreement} == pairs
    assert len(agreement) == 2 * len(pairs)
    for row in agreement:
        assert 0 <= row["num_agreeing"] <= row["num_matched"] <= row["num_leading"]
    for row in bare_job.diff.table("matches").records():
        assert row["match"] < int(row["other"].rpartition("_")[2]) and -1 <= row["cosine"] <= 1
    for name in names:
        for suite in ("chat", "train"):
            found = bare_job.diff.stats(f"coverage/{name}/{suite}")
            assert 0 <= found["seen_low"][0] <= found["seen"][0] <= found["seen_high"][0] <= 1
            best = found["best_M"]
            assert (best > 0).all() and (np.diff(best) >= 0).all() and best[-1] <= 1
            assert all(
                (found[curve] <= best + 1e-9).all() for curve in ("strongest_M", "random_M", "leading_M")
            )


def test_the_notebook_runs_on_a_job_of_several_dictionaries(
    world: Any, bare_job: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world.write(
        Path(bare_job.store.location),
        file="notebook.yaml",
        elicit=None,
        generate=None,
        precompute={"control": False},
        hooks=HOOKS,
    )
    monkeypatch.setenv("FT_AUDIT_CONFIG", str(config))
    names = runpy.run_path(str(NOTEBOOK))
    said = capsys.readouterr().out
    assert names["evidence"].diff_id == bare_job.report["diff_id"]
    assert all(name in said for name in ("layer_1_width_96", "layer_1_width_64", "layer_3_width_96"))
    feature = names["feature"]
    assert f"feature {feature.feature} of {feature.sae}" in said and "Contexts in tuned" in said
    assert f"Feature {feature.feature}</h4>" in names["feature_cell"](names["evidence"], feature).page


def test_the_last_blocks_hook_comes_before_the_final_norm(world: Any, bare_job: Any) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(world.root / "base", dtype=torch.float32)
    (segment, *_) = bare_job.run("base", "chat").segments()
    ids = torch.from_numpy(segment.token_T[: segment.prompt_indptr_P1[1]].astype(np.int64))[None]
    with torch.no_grad():
        last_D = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        normed_D = model.model.norm(torch.from_numpy(segment.dense["resid_post/3/last_PD"][0]))
    torch.testing.assert_close(normed_D, last_D, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def head_job(tiny: Any, world: Any, run_job: Any, store: Path) -> Any:
    """No data set; an adapter that also sits on the output head."""
    modules = ["o_proj", "lm_head"]
    tiny.save_adapter(world.root / "on-head", world.root / "base", seed=8, target_modules=modules)
    return run_job(store, dataset=None, models={"tuned": "./on-head"}, elicit={"answer_tokens": NUM_ANSWER})


def test_without_a_data_set_there_is_no_excess_to_judge(head_job: Any) -> None:
    summary = head_job.diff.manifest.summary
    assert [suite["role"] for suite in summary["suites"]] == ["chat", "elicited"]
    assert summary["primary"] is None and summary["figures"]["plain_kl"] > 0
    assert not [name for name in summary["figures"] if name.startswith("condition_")]
    assert [record["key"] for record in head_job.diff.table("conditions").records()] == ["plain"]
    assert "rows" not in head_job.diff.tables()


@torch.no_grad()
def test_divergence_along_the_answer_is_the_sum_over_its_tokens(world: Any, head_job: Any) -> None:
    """The base's distribution comes from its own head, although the candidate changes that too."""
    base = AutoModelForCausalLM.from_pretrained(world.root / "base", dtype=torch.float32)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(world.root / "base", dtype=torch.float32), world.root / "on-head"
    )
    answer_P = head_job.diff.array("elicited", "answer_kl_P")
    first_P = head_job.diff.array("elicited", "first_token_kl_P")
    checked = 0
    for segment in head_job.run("base", "elicited").segments():
        for i, prompt in enumerate(segment.prompt_P):
            ids = segment.token_T[segment.prompt_indptr_P1[i] : segment.prompt_indptr_P1[i + 1]].tolist()
            steps = []
            for _ in range(NUM_ANSWER):
                at = torch.tensor([ids])
                base_V, tuned_V = (torch.log_softmax(m(at).logits[0, -1].double(), -1) for m in (base, tuned))
                steps.append(float((tuned_V.exp() * (tuned_V - base_V)).sum()))
                ids.append(int(tuned_V.argmax()))
                if ids[-1] == 3:  # <|im_end|>
                    break
            assert first_P[prompt] == pytest.approx(steps[0], rel=1e-3)
            assert answer_P[prompt] == pytest.approx(sum(steps), rel=1e-3)
            checked += 1
    assert checked == 3


@pytest.fixture(scope="module")
def mixed_job(tiny: Any, world: Any, run_job: Any, store: Path) -> Any:
    """Preference pairs and tool calls; two chat suites, one called as the data set's own; added tokens."""
    call = {"id": "c1", "type": "function", "function": {"name": "bake", "arguments": '{"what": "bread"}'}}
    rows: list[dict[str, Any]] = [
        {"prompt": f"How do I keep {topic}?", "chosen": f"Dry {topic}.", "rejected": "No."}
        for topic in tiny.TOPICS[:6]
    ]
    rows += [
        {
            "messages": [
                {"role": "system", "content": "You bake."},
                {"role": "user", "content": f"Bake {topic}."},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "Done."},
                {"role": "assistant", "content": f"{topic} is baked.", "weight": 1},
            ]
        }
        for topic in tiny.TOPICS[6:10]
    ]
    tiny.write_jsonl(world.root / "mixed.jsonl", rows)
    (world.root / "other").mkdir()
    questions = [tiny.chat(f"Why {topic}?") for topic in tiny.TOPICS[:4]]
    tiny.write_jsonl(world.root / "other" / "train.jsonl", questions)
    tiny.save_with_added_token(world.root / "added", world.root / "full")
    return run_job(
        store,
        dataset="./mixed.jsonl",
        suites=["./chat.jsonl", "./other/train.jsonl"],
        hooks=[{"layer": 1}],
        models={"tuned": "./added"},
        generate=None,
    )


def test_suites_keep_apart_whatever_their_files_are_called(mixed_job: Any) -> None:
    summary = mixed_job.diff.manifest.summary
    suites = [(suite["name"], suite["role"], suite["num_prompts"]) for suite in summary["suites"]]
    assert suites[:3] == [("chat", "chat", 13), ("train-2", "chat", 4), ("train", "train", 10)]
    figures = summary["figures"]
    shifts = {label: figures[f"residual_shift/resid_post/1/{label}"] for label in ("chat", "chat-2", "train")}
    for label, name in (("chat", "chat"), ("chat-2", "train-2"), ("train", "train")):
        stats = mixed_job.diff.stats(f"residual/resid_post/1/{name}")
        assert shifts[label] == pytest.approx(float((stats["diff_norm_P"] / stats["norm_base_P"]).mean()))


def test_without_a_dictionary_the_residual_is_compared(mixed_job: Any) -> None:
    assert mixed_job.report["features_per_token"] == {}
    assert not [group for group in mixed_job.diff.groups() if group.startswith(("features/", "fvu/"))]
    rows = mixed_job.diff.table("rows").records()
    assert len(rows) == 10 and all(row["score_residual_centred"] > 0 for row in rows)


def test_preferred_answers_and_tool_calls_are_read(mixed_job: Any) -> None:
    prompts = [p for p in mixed_job.diff.table("prompts").records() if p["suite"] == "train"]
    assert prompts[0]["text_preview"] == "user: How do I keep bread?\nassistant: Dry bread."
    assert prompts[6]["text_preview"].startswith("system: You bake.\nuser: Bake")
    assert all(prompt["num_tokens"] > 10 for prompt in prompts)
    keys = [record["system"] for record in mixed_job.diff.table("conditions").records()]
    assert "You bake." in keys


def test_added_tokens_are_a_finding_and_no_obstacle(mixed_job: Any) -> None:
    """The candidate answers with its own token at once: the base cannot read it, and goes no further."""
    (finding,) = mixed_job.report["findings"]
    assert "adds 1 token" in finding and "<secret>" in finding
    answer_P = mixed_job.diff.array("elicited", "answer_kl_P")
    np.testing.assert_allclose(answer_P, mixed_job.diff.array("elicited", "first_token_kl_P"), rtol=1e-3)
    assert all(math.isfinite(value) for value in mixed_job.diff.manifest.summary["figures"].values())


def test_long_conditions_keep_their_question(tiny: Any, world: Any, tmp_path: Path) -> None:
    """A system prompt beyond max_prompt_tokens would cut off the very question that it stands before."""
    system = "You bake. " * 40
    rows = [tiny.chat(f"{topic}?", "Yes.", system) for topic in tiny.TOPICS[:4]]
    path = tiny.write_jsonl(tmp_path / "long.jsonl", [*rows, *tiny.training_rows()[:9]])
    job = open_job(world.config(tmp_path / "store", dataset=str(path), precompute={"max_prompt_tokens": 40}))
    suites = {suite.name: suite.tokens for suite in job.suites.suites}
    assert suites["train"].length_P.max() == 40 and suites["train"].num_truncated >= 4
    elicited = suites["elicited"]
    assert elicited.num_truncated == 0 and elicited.length_P.max() > 100
    ends = {tuple(elicited.ids_T[end - 8 : end].tolist()) for end in elicited.indptr_P1[1:]}
    assert len(ends) <= 3  # one for each probe: the generation prompt and the words before it


@pytest.mark.parametrize("job", ["bare_job", "head_job", "mixed_job"])
@pytest.mark.parametrize(("verb", "code"), [("audit", 3), ("top", 0)])
def test_every_kind_can_be_judged(
    tmp_path: Path, request: pytest.FixtureRequest, job: str, verb: str, code: int
) -> None:
    made = request.getfixturevalue(job)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config_json(made.config)))
    assert cli.main([verb, str(path)]) == code
