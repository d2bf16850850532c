"""The activation difference lens of the tiny jobs, against dense sums over the stored runs."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_audit.engine.precompute import lens
from ft_audit.errors import ModelError

HOOK = "resid_post/1"


def lens_of(job: Any, **equal: Any) -> list[dict[str, Any]]:
    records = job.diff.table("lens").records()
    return [r for r in records if all(r[name] == value for name, value in equal.items())]


def effects(folder: Any, vector_D: np.ndarray) -> torch.Tensor:
    """What a direction adds to every logit, by the loaded model's own norm and head."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    effect_V = (torch.from_numpy(vector_D).float() * model.model.norm.weight) @ model.lm_head.weight.T
    return (effect_V - effect_V.mean()).detach()


def test_the_mean_difference_is_read_through_the_base_s_head(adapter_job: Any, world: Any) -> None:
    (record,) = lens_of(adapter_job, suite="chat", position=lens.MEAN, kind="tuned")
    vector_D = adapter_job.diff.array(f"tokens/{HOOK}/chat", "shift_W")
    assert record["norm"] == pytest.approx(np.linalg.norm(vector_D)) and record["norm"] > 0
    top = effects(world.root / "base", vector_D).topk(lens.NUM_TOKENS)
    np.testing.assert_allclose(record["promoted_effect"], top.values, rtol=1e-4, atol=1e-5)
    assert len(record["promoted"]) == len(record["suppressed"]) == lens.NUM_TOKENS
    assert record["suppressed_effect"] == sorted(record["suppressed_effect"])
    assert 0 <= record["percentile"] <= 100


def test_first_positions_stand_by_themselves(adapter_job: Any) -> None:
    stats = adapter_job.diff.stats(f"tokens/{HOOK}/chat")
    for position in range(lens.NUM_POSITIONS):
        found = lens_of(adapter_job, suite="chat", position=position, kind="tuned")
        num = int(stats["start_tokens_B"][position])
        assert [r["num"] for r in found] == ([num] if num else [])
        for record in found:
            expected = np.linalg.norm(stats["start_shift_BW"][position])
            assert record["norm"] == pytest.approx(expected)


def test_templates_and_both_controls_are_read(adapter_job: Any) -> None:
    groups = {r["group"] for r in lens_of(adapter_job, suite="elicited") if r["group"]}
    asked = {r["group"] for r in adapter_job.diff.table("prompts").records() if r["suite"] == "elicited"}
    assert groups == asked and "plain" in groups
    (control,) = lens_of(adapter_job, kind="control")
    (tuned,) = lens_of(adapter_job, suite="chat", position=lens.MEAN, kind="tuned")
    assert control["norm"] < 1e-3 * tuned["norm"] and control["suite"] == "chat"
    (random,) = lens_of(adapter_job, kind="random")
    assert random["norm"] == pytest.approx(1.0) and random["suite"] is None


def test_a_whole_checkpoint_s_own_head_is_read_too(adapter_job: Any, full_job: Any) -> None:
    assert {r["head"] for r in lens_of(adapter_job)} == {"base"}
    assert {r["head"] for r in lens_of(full_job)} == {"base", "tuned"}


def test_a_direction_planted_in_the_head_is_what_it_points_to(
    adapter_job: Any, world: Any, tmp_path: Any, copy_model: Any
) -> None:
    (record,) = lens_of(adapter_job, suite="chat", position=lens.MEAN, kind="tuned")
    vector_D = adapter_job.diff.array(f"tokens/{HOOK}/chat", "shift_W")

    def plant(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"][77] = torch.from_numpy(100 * vector_D / np.linalg.norm(vector_D)).float()

    from ft_audit.engine.models.reference import resolve_model

    folder = copy_model(world.root / "base", tmp_path / "planted", weights=plant)
    shift = lens.Shift(HOOK, "chat", None, lens.MEAN, "tuned", 1, 1.0, vector_D)
    first, _ = lens._read([shift], "base", resolve_model(str(folder), tmp_path), 300)
    assert first["promoted"][0] == 77 and first["percentile"] == 100
    assert record["promoted_effect"][0] < first["promoted_effect"][0]


def test_a_head_that_cannot_be_read_costs_no_job(
    run_job: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise ModelError("no head of width 32")

    monkeypatch.setattr(lens, "token_effects", refuse)
    job = run_job(tmp_path / "store", elicit=None, generate=None, precompute={"control": False})
    assert job.diff.table("lens").num_rows == 0
    assert job.diff.manifest.summary["lens_refused"] == "no head of width 32"
