"""A job killed at any moment and run again leaves the bytes of an unbroken one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Before the first manifest, within a segment, between segments, on the tuned side, and within the diff.
MOMENTS = ("fsync-1", "fsync-50", "segment-1", "segment-6", "diff")


@pytest.fixture(scope="module")
def killed(world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What happened to each store, by its name."""
    root = tmp_path_factory.mktemp("killed")
    # Small, but with every kind of run: several segments, both sides, conditions, the control.
    sections: dict[str, Any] = {
        "suites": [],
        "precompute": {"tokens_per_segment": 500},
        "elicit": {"num_probes": 2, "max_conditions": 1},
        "generate": None,
    }
    config = world.write(root / "unused", file="killed.yaml", **sections)
    stores = [str(root / name) for name in ("unbroken", *MOMENTS)]
    script = Path(__file__).with_name("kill_case.py")
    done = subprocess.run(
        [sys.executable, str(script), str(config), *stores],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(record["store"]).name: record for record in records}


def test_an_unbroken_job_ends_well(killed: dict[str, dict[str, Any]]) -> None:
    assert killed["unbroken"]["codes"] == [0]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_job_goes_on_to_the_same_bytes(
    tiny: Any, killed: dict[str, dict[str, Any]], moment: str
) -> None:
    record = killed[moment]
    assert record["codes"] == [-signal.SIGKILL, 0]
    expected = tiny.files_of(Path(killed["unbroken"]["store"]))
    found = tiny.files_of(Path(record["store"]))
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert len([name for name in expected if name.endswith("manifest.json")]) == 8


def test_the_killed_jobs_died_where_they_should(killed: dict[str, dict[str, Any]]) -> None:
    left = {moment: killed[moment]["left"] for moment in MOMENTS}
    segments = {
        moment: len([name for name in names if name.endswith(".zarr")]) for moment, names in left.items()
    }
    assert segments["fsync-1"] == 0 and segments["segment-1"] >= 1 and segments["segment-6"] >= 6
    # Finished segments are not written again, so the run must have had something left to do.
    whole = len([*Path(killed["unbroken"]["store"]).glob("runs/*/segments/*.zarr")])
    assert segments["segment-6"] < whole == segments["diff"]
    assert any(name.startswith("diffs/") and name.endswith(".tmp") for name in left["diff"])
    assert not any(name.startswith("diffs/") for moment in MOMENTS[:4] for name in left[moment])
