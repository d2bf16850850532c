"""What two models, or two jobs, share: resident activations, blocks, statistics without features."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.precompute.passes import plan_passes
from ft_audit.engine.precompute.plan import open_job
from ft_audit.engine.precompute.runners import HfPairRunners
from ft_audit.engine.runners import hf
from ft_audit.errors import ModelError

SAE = "layer_1_width_96"
SIDES = ("base", "tuned", "pair")


def run_files(tiny: Any, job: Any, side: str, suite: str) -> dict[str, bytes]:
    run_id = next(r["run_id"] for r in job.report["runs"] if (r["side"], r["suite"]) == (side, suite))
    return dict(tiny.files_of(Path(job.store.location) / "runs" / run_id))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which model read each batch while a test runs."""
    found: list[str] = []
    for side in ("base", "tuned"):
        real = getattr(HfPairRunners, side)

        def record(self: Any, *args: Any, real: Any = real, side: str = side, **kwargs: Any) -> Any:
            found.append(side)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(HfPairRunners, side, record)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("logits", ["last", "all"])
def test_a_stored_base_is_not_run_again_and_gives_the_same_bytes(
    tiny: Any, run_job: Any, tmp_path: Path, reads: list[str], dtype: str, logits: str
) -> None:
    kind = {"elicit": None, "generate": None, "models": {"tuned": "./full", "dtype": dtype}}
    settings = {"keep_residuals": True, "logits": logits, "control": False}
    run_job(tmp_path / "reused", **{**kind, "models": {"dtype": dtype}}, precompute=settings)
    assert set(reads) == {"base", "tuned"}
    reads.clear()
    second = run_job(tmp_path / "reused", **kind, precompute=settings)
    assert set(reads) == {"tuned"}
    alone = run_job(tmp_path / "alone", **kind, precompute=settings)
    assert set(reads) == {"base", "tuned"}
    for suite in ("chat", "train"):
        for side in SIDES:
            assert run_files(tiny, second, side, suite) == run_files(tiny, alone, side, suite)
    assert second.report["read_share"] > 0 == alone.report["read_share"]


def test_without_stored_activations_the_base_runs_again_and_its_run_is_not_written_again(
    tiny: Any, adapter_job: Any, full_job: Any, run_job: Any, tmp_path: Path, reads: list[str]
) -> None:
    sections = {"elicit": None, "generate": None, "precompute": {"control": False}}
    first = run_job(tmp_path, **sections)
    before = {suite: run_files(tiny, first, "base", suite) for suite in ("chat", "train")}
    reads.clear()
    second = run_job(tmp_path, models={"tuned": "./full"}, **sections)
    assert set(reads) == {"base", "tuned"}
    assert before == {suite: run_files(tiny, second, "base", suite) for suite in before}


def test_statistics_alone_are_those_of_stored_features_to_the_bit(run_job: Any, tmp_path: Path) -> None:
    sections = {"models": {"tuned": "./full"}, "generate": None}
    whole = run_job(tmp_path / "features", **sections)
    small = run_job(tmp_path / "stats", **sections, precompute={"keep": "stats"})
    assert small.run("tuned", "train").manifest.sae_names() == []
    assert small.run("base", "chat").manifest.sae_names() == [SAE]  # the noise floor's
    kinds = ("features/", "groups/", "fvu/", "tokens/", "coverage/")
    groups = [g for g in whole.diff.groups() if g.startswith(kinds)]
    assert any(g.startswith("groups/") for g in groups)
    for group in groups:
        ours, theirs = small.diff.stats(group), whole.diff.stats(group)
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array, err_msg=f"{group} {name}")
    scores = [job.diff.table("rows").array("primary_score") for job in (small, whole)]
    np.testing.assert_array_equal(*scores)
    assert small.report["bytes_per_token"] != whole.report["bytes_per_token"]


@pytest.fixture
def half_tuned(tiny: Any, world: Any) -> str:
    """A checkpoint whose first two blocks are the base's."""
    folder = world.root / "half"
    if not folder.exists():
        import shutil

        shutil.copytree(world.root / "full", folder)
        base = tiny.load_file(world.root / "base" / "model.safetensors")

        def restore(name: str, tensor: torch.Tensor) -> None:
            if ".layers.0." in name or ".layers.1." in name:
                tensor.copy_(base[name])

        tiny.change_tensors(folder / "model.safetensors", restore)
    return "./half"


def test_blocks_that_are_the_same_run_once(
    tiny: Any, run_job: Any, half_tuned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {
        "models": {"tuned": half_tuned},
        "elicit": None,
        "generate": None,
        "hooks": [{"layer": 0}, {"layer": 3, "saes": ["./saes/layer_3_width_96"]}],
    }
    shared = run_job(tmp_path / "shared", **sections)
    monkeypatch.setattr(HfPairRunners, "shared_blocks", 0)
    alone = run_job(tmp_path / "alone", **sections)
    for suite in ("chat", "train"):
        for side in SIDES:
            assert run_files(tiny, shared, side, suite) == run_files(tiny, alone, side, suite)
    moved = {layer: shared.diff.array(f"tokens/resid_post/{layer}/chat", "mean_moved")[0] for layer in (0, 3)}
    assert moved[0] == 0 < moved[3]


class Full:
    """A device that holds so many tokens of a batch and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        real = hf.HfRunner.run

        def run(runner: Any, batch: Any, **kwargs: Any) -> Any:
            self.sizes.append(batch.ids_BL.numel())
            if batch.ids_BL.numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
            return real(runner, batch, **kwargs)

        monkeypatch.setattr(hf.HfRunner, "run", run)


def test_out_of_memory_goes_on_with_smaller_batches_for_good(
    run_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Full(monkeypatch, 100)
    sections = {"elicit": None, "generate": None, "precompute": {"control": False}}
    with caplog.at_level(logging.WARNING):
        job = run_job(tmp_path, **sections)
    assert job.report["tokens_per_batch"] == {"chat": 64, "train": 64}
    said = [r.getMessage() for r in caplog.records if "does not fit into memory" in r.getMessage()]
    assert len(said) == 4 and "256 tokens" in said[0] and "going on with 128" in said[0]
    # Another candidate over the same store knows before it tries.
    full.sizes.clear()
    again = run_job(tmp_path, models={"tuned": "./full"}, **sections)
    assert full.sizes and max(full.sizes) <= 100
    assert again.report["tokens_per_batch"] == job.report["tokens_per_batch"]


def test_a_prompt_that_does_not_fit_by_itself_is_said_so(
    run_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, 10)
    with pytest.raises(
        ModelError,
        match=r"single prompt of 28 tokens does not fit into memory .* lower precompute.max_prompt_tokens",
    ):
        run_job(tmp_path, elicit=None, generate=None, precompute={"control": False})


def test_long_prompts_in_windows_lose_nothing(run_job: Any, tmp_path: Path) -> None:
    sections = {"elicit": None, "generate": None}
    short = {"max_prompt_tokens": 24, "control": False}
    cut = run_job(tmp_path, **sections, precompute=short)
    whole = run_job(tmp_path, **sections, precompute={**short, "long_prompts": "window"})
    full = run_job(tmp_path, **sections, precompute={"control": False})
    tokens = [job.run("base", "train").manifest.num_tokens for job in (cut, whole, full)]
    assert tokens[0] < tokens[1] == tokens[2]
    assert cut.report["truncated"]["train"] == whole.report["windowed"]["train"] > 0
    assert cut.report["windowed"]["train"] == whole.report["truncated"]["train"] == 0
    rows = whole.diff.table("rows").array("row")
    assert len(rows) > len(set(rows.tolist())) == 24


def test_evidence_of_logits_gives_rows_their_losses(run_job: Any, tmp_path: Path) -> None:
    job = run_job(tmp_path, elicit=None, generate=None, precompute={"logits": "all", "control": False})
    rows = job.diff.table("rows")
    assert (rows.array("loss_base") > 0).all() and (rows.array("loss_tuned") > 0).all()
    found = job.diff.stats("logits/train")
    np.testing.assert_allclose(
        found["kl_mean"][0] * found["tokens"][0], rows.array("kl_sum").sum(), rtol=1e-6
    )
    figures = job.diff.manifest.summary["figures"]
    assert figures["kl_max/train"] == rows.array("kl_max").max() >= figures["kl_mean/train"] > 0


def test_the_clock_adds_up() -> None:
    clock = Clock()
    with clock.time("forward"):
        pass
    other = Clock(forward=1.0, wait=2.0)
    clock.add(other)
    assert clock.forward > 1.0 and clock.wait == 2.0 and clock.encode == 0.0


def test_planning_over_a_new_store_takes_the_batches_asked_for(world: Any, tmp_path: Path) -> None:
    passes = plan_passes(open_job(world.config(tmp_path / "new")))
    assert {p.tokens_per_batch for p in passes} == {256}
