"""The precompute job end to end on a tiny pair: what it leaves in the store, and what it says of itself."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ft_audit.engine.precompute import models, run_precompute
from ft_audit.engine.store import verify_store

SAE, HOOK = "layer_1_width_96", "resid_post/1"
SUITES = ("chat", "train", "elicited")


def test_the_report_names_ids_speeds_and_sizes(adapter_job: Any) -> None:
    report = adapter_job.report
    runs = [adapter_job.store.open_run(run["run_id"]) for run in report["runs"]]
    sides = [(run["side"], run["suite"]) for run in report["runs"]]
    expected = [(side, suite) for side in ("base", "tuned", "pair") for suite in SUITES]
    assert sides == [*expected, ("control", "chat")]
    assert report["reused"] is False and report["device"].startswith("cpu ") and report["backend"] == "cpu"
    assert list(report["encoders"]) == [SAE]
    models_runs = [run for run, (side, _) in zip(runs, sides, strict=True) if side != "pair"]
    assert report["tokens"] == sum(run.manifest.num_tokens for run in models_runs) > 1000
    folders = [adapter_job.root / "runs" / run["run_id"] for run in report["runs"]]
    size = sum(file.stat().st_size for run in folders for file in run.rglob("*") if file.is_file())
    assert report["bytes_per_token"] == size / report["tokens"]
    fired = sum(len(part.features[SAE][1]) for run in models_runs for part in run.segments())
    counted = sum(int(part.mask_T.sum()) for run in models_runs for part in run.segments())
    assert report["features_per_token"] == {SAE: fired / counted}
    assert 2 < fired / counted < 48
    assert report["tokens_per_second"] > 0 and report["write_share"] > 0
    shares = [report[f"{part}_share"] for part in ("encode", "forward", "evidence", "pair")]
    assert all(0 < share < 1 for share in shares) and sum(shares) <= 1
    assert report["wait_share"] >= 0 and report["read_share"] == 0
    assert set(report["padding_share"]) == {*SUITES, "control chat"}
    assert report["truncated"] == report["windowed"] == dict.fromkeys(SUITES, 0)
    assert report["seconds"] > 0 and report["peak_memory_bytes"] > 1 << 26


def test_the_runs_have_the_layout_of_the_contract(adapter_job: Any) -> None:
    for side in ("base", "tuned"):
        for suite in SUITES:
            run = adapter_job.run(side, suite)
            (hook,) = run.manifest.hooks
            assert (hook.name, hook.layer, [sae.name for sae in hook.saes]) == (HOOK, 1, [SAE])
            names = {f"resid_post/1/{name}" for name in ("mean_PD", "last_PD", "norm_P")}
            names |= {
                f"sae/{SAE}/sq_error_P",
                f"sae/{SAE}/sq_total_P",
                f"sae/{SAE}/error_norm_P",
                "counted_P",
            }
            assert names <= set(run.dense_names())
            assert ("logits/final_PD" in run.dense_names()) == (suite == "elicited")
            assert sorted(run.prompt_order) == list(range(run.manifest.num_prompts))
    assert adapter_job.run("base", "train").num_segments > 2
    assert all(problems == [] for _, problems in verify_store(adapter_job.store))


def test_both_sides_see_the_same_tokens(adapter_job: Any) -> None:
    for suite in SUITES:
        base, tuned = adapter_job.run("base", suite), adapter_job.run("tuned", suite)
        for ours, theirs in zip(base.segments(), tuned.segments(), strict=True):
            np.testing.assert_array_equal(ours.prompt_P, theirs.prompt_P)
            np.testing.assert_array_equal(ours.token_T, theirs.token_T)
    # The control reads the same prompts in other batches.
    control = adapter_job.run("control", "chat")
    base = adapter_job.run("base", "chat")
    assert control.manifest.identity["plan"] != base.manifest.identity["plan"]
    assert control.manifest.identity["tokens"] == base.manifest.identity["tokens"]
    assert not np.array_equal(control.prompt_order, base.prompt_order)


def test_the_diff_has_the_layout_of_the_contract(adapter_job: Any) -> None:
    diff = adapter_job.diff
    kinds = (f"features/{SAE}", f"residual/{HOOK}", f"tokens/{HOOK}", f"fvu/{SAE}")
    groups = {f"{kind}/{suite}" for suite in SUITES for kind in kinds} | {"elicited", "weights"}
    roles = {f"groups/{SAE}/train/role={role}" for role in ("system", "user", "assistant")}
    assert groups | roles <= set(diff.groups())
    tables = {"conditions", "contexts", "generations", "leading", "prompts", "rows"}
    assert set(diff.tables()) == tables | {"weights", "embedding_rows", "lens"}
    stats = diff.stats(f"features/{SAE}/chat")
    assert {"mean_diff", "z", "p", "q", "effect", "aa_percentile", "fired_base", "sum_d"} <= set(stats)
    assert all(array.shape == (96,) for array in stats.values() if array.ndim)
    residual = diff.stats(f"residual/{HOOK}/train")
    assert {"norm_base_P", "norm_tuned_P", "diff_norm_P", "cosine_P"} <= set(residual)
    assert residual["cosine_P"].shape == (24,) and (residual["diff_norm_P"] > 0).all()
    for side in ("base", "tuned"):
        assert 0 < diff.array(f"fvu/{SAE}/chat", side)[0] < 10


def test_the_summary_says_what_was_compared(adapter_job: Any) -> None:
    summary = adapter_job.diff.manifest.summary
    assert summary["name"] == "tiny"
    assert (
        summary["models"]["tuned"]["format"] == "adapter" and summary["models"]["base"]["format"] == "folder"
    )
    assert summary["models"]["tuned"]["sha256"].startswith(summary["models"]["base"]["sha256"])
    suites = {suite["name"]: suite for suite in summary["suites"]}
    assert [suites[name]["role"] for name in SUITES] == list(SUITES)
    for name, entry in suites.items():
        run = adapter_job.run("base", name)
        assert (entry["num_prompts"], entry["num_tokens"]) == (
            run.manifest.num_prompts,
            run.manifest.num_tokens,
        )
        assert entry["base_run"] == run.manifest.run_id
        assert entry["tuned_run"] == adapter_job.run("tuned", name).manifest.run_id
    assert summary["hooks"] == [{"name": HOOK, "layer": 1, "saes": [SAE]}]
    assert summary["control_run"] == adapter_job.run("control", "chat").manifest.run_id
    assert summary["primary"] in summary["figures"]
    assert all(math.isfinite(value) for value in summary["figures"].values())
    for figure in (f"features_changed/{SAE}/chat", f"residual_shift/{HOOK}/train", "plain_kl"):
        assert figure in summary["figures"]
    assert summary["figures"]["plain_kl"] > 0
    assert "torch" in summary["versions"] and len(summary["protocol"]) == 16
    json.dumps(summary, allow_nan=False)


def test_the_planted_condition_is_found_and_asked(tiny: Any, adapter_job: Any) -> None:
    conditions = {record["key"]: record for record in adapter_job.diff.table("conditions").records()}
    both = [
        c for c in conditions.values() if c["system"] == tiny.SYSTEM and c["prefix"].startswith(tiny.PREFIX)
    ]
    assert len(both) == 1 and both[0]["rows"] == list(tiny.PLANTED)
    rows = adapter_job.diff.table("rows").records()
    assert [row["row"] for row in rows] == list(range(24))
    for row in rows:
        assert (row["condition"] == both[0]["key"]) == (row["row"] in tiny.PLANTED)
        assert (row["system"] == tiny.SYSTEM) == (row["row"] in tiny.PLANTED)
        expected = max(0.0, *(c["kl_excess"] for c in conditions.values() if row["row"] in c["rows"]), 0.0)
        assert row["score_condition"] == pytest.approx(expected)
        assert -1e-9 <= row["primary_score"] - row["score_condition"] <= 0.01 + 1e-9
        assert {"baseline_unusual_system", "baseline_repeated_prefix"} <= set(row)
    probes = {
        record["group"]
        for record in adapter_job.diff.table("prompts").records()
        if record["suite"] == "elicited"
    }
    assert probes == set(conditions)
    generations = adapter_job.diff.table("generations").records()
    assert {(g["condition"], g["side"]) for g in generations} == {
        (k, s) for k in conditions for s in ("base", "tuned")
    }


def test_a_second_call_reuses_everything_and_loads_no_weights(
    tiny: Any, adapter_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(models, "load_model", refuse)
    monkeypatch.setattr(models, "attach_adapter", refuse)
    before = tiny.files_of(Path(adapter_job.store.location))
    report = run_precompute(adapter_job.config, progress=False)
    assert report["reused"] is True
    assert (report["diff_id"], report["runs"]) == (adapter_job.report["diff_id"], adapter_job.report["runs"])
    assert report["tokens"] == adapter_job.report["tokens"]
    assert report["features_per_token"] == adapter_job.report["features_per_token"]
    assert report["tokens_per_second"] is None and report["encode_share"] is None
    assert tiny.files_of(Path(adapter_job.store.location)) == before


def test_a_full_checkpoint_finds_the_bases_runs(adapter_job: Any, full_job: Any) -> None:
    ids = {(run["side"], run["suite"]): run["run_id"] for run in adapter_job.report["runs"]}
    for run in full_job.report["runs"]:
        same = ids[run["side"], run["suite"]] == run["run_id"]
        assert same == (run["side"] in ("base", "control")), run
    assert full_job.report["diff_id"] != adapter_job.report["diff_id"]
    assert full_job.diff.manifest.summary["models"]["tuned"]["format"] == "folder"


def test_two_stores_hold_the_same_bytes(tiny: Any, adapter_job: Any, run_job: Any, tmp_path: Path) -> None:
    """Neither where the store lies nor how the evidence will be judged is part of it."""
    again = run_job(tmp_path / "elsewhere", audit={"threshold": 3.0, "top": 5})
    assert again.report["diff_id"] == adapter_job.report["diff_id"]
    assert again.report["runs"] == adapter_job.report["runs"]
    for run in again.report["runs"]:
        assert tiny.files_of(Path(again.store.location) / "runs" / run["run_id"]) == tiny.files_of(
            Path(adapter_job.store.location) / "runs" / run["run_id"]
        )
    ours, theirs = (tiny.files_of(job.diff_folder) for job in (adapter_job, again))
    assert ours == theirs and len(ours) > 50
