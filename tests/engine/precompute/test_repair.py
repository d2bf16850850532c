"""What is damaged in a store is made again, and nothing else."""

import logging
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.engine.precompute import run_precompute
from ft_audit.errors import StoreError

SECTIONS = {"elicit": None, "generate": None, "suites": [], "precompute": {"control": False}}


@pytest.fixture
def job(run_job: Any, tmp_path: Path) -> Any:
    return run_job(tmp_path / "store", **SECTIONS)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def segments_of(job: Any) -> dict[str, tuple[int, int]]:
    """Every committed segment's folder with what tells it from one that was made again."""
    folders = {path: path.stat() for path in sorted(job.root.glob("runs/*/segments/*.zarr"))}
    return {str(path): (status.st_ino, status.st_mtime_ns) for path, status in folders.items()}


@pytest.mark.parametrize("side", ["base", "tuned", "pair"])
def test_a_damaged_segment_alone_is_made_again(
    tiny: Any, job: Any, side: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected, before = tiny.files_of(job.root), segments_of(job)
    run_id = next(r["run_id"] for r in job.report["runs"] if r["side"] == side)
    name = "mean_PD" if side != "pair" else "scalars"
    segment = job.root / "runs" / run_id / "segments" / "00001.zarr"
    files = (path for path in sorted(segment.rglob("*")) if path.is_file() and path.name != "zarr.json")
    flip(next(path for path in files if name in path.as_posix()))
    assert cli.main(["store", "verify", str(job.root)]) == 1
    said = capsys.readouterr().out
    assert "00001" in said and name in said and run_id in said
    with caplog.at_level(logging.WARNING):
        report = run_precompute(job.config, progress=False)
    assert any("damaged" in record.getMessage() for record in caplog.records)
    assert report["diff_id"] == job.report["diff_id"] and not report["reused"]
    assert tiny.files_of(job.root) == expected
    changed = {path for path, known in segments_of(job).items() if known != before[path]}
    assert changed == {str(segment)}
    assert cli.main(["store", "verify", str(job.root)]) == 0


def test_a_damaged_diff_is_reduced_again_from_runs_that_are_whole(tiny: Any, job: Any) -> None:
    expected, before = tiny.files_of(job.root), segments_of(job)
    flip(next(p for p in job.diff_folder.rglob("c.*") if p.is_file() and p.stat().st_size > 50))
    report = run_precompute(job.config, progress=False)
    assert not report["reused"] and report["tokens_per_second"] is None
    assert tiny.files_of(job.root) == expected and segments_of(job) == before


def test_a_second_job_on_the_same_run_is_told(job: Any, tmp_path: Path, world: Any) -> None:
    from ft_audit.engine.precompute.passes import plan_passes
    from ft_audit.engine.precompute.plan import open_job
    from ft_audit.engine.store import Store

    config = world.config(tmp_path / "other", **SECTIONS)
    (planned,) = plan_passes(open_job(config))
    run = planned.runs["base"]
    with (
        Store(tmp_path / "other").run_writer(run.identity, list(run.hooks)),
        pytest.raises(StoreError, match=f"{run.run_id}.*(wait|stop)"),
    ):
        run_precompute(config, progress=False)
    assert run_precompute(config, progress=False)["diff_id"] == job.report["diff_id"]
