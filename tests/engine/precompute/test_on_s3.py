"""The same job into a real S3 server: the same evidence, resumed, read and judged there."""

import json
from typing import Any

import numpy as np
import pytest

from ft_audit import cli
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.store import Store


def test_a_job_on_s3_is_the_job_on_a_disk(
    world: Any, adapter_job: Any, s3_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world.config(s3_root)
    report = run_precompute(config, progress=False)
    assert (report["diff_id"], report["runs"]) == (adapter_job.report["diff_id"], adapter_job.report["runs"])
    assert report["store"] == s3_root
    ours, theirs = Store(s3_root).open_diff(report["diff_id"]), adapter_job.diff
    assert ours.manifest == theirs.manifest
    for group in theirs.groups():
        for name, array in theirs.stats(group).items():
            np.testing.assert_array_equal(ours.array(group, name), array)
    again = run_precompute(config, progress=False)
    assert again["reused"] is True and again["bytes_per_token"] == report["bytes_per_token"]
    path = world.write(s3_root)
    capsys.readouterr()
    assert cli.main(["audit", str(path), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["diff"] == report["diff_id"] and verdict["store"] == s3_root
    assert cli.main(["store", "verify", s3_root]) == 0
