"""What was precomputed is judged without the models, and without torch."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.agent.detectors.registry import scalars_of
from ft_audit.agent.summary import Summary, summarise

# A plain install has none of these; importing one must not even be tried.
ABSENT = ("torch", "transformers", "tokenizers", "peft", "numba", "scipy", "dask", "distributed", "tqdm")
SCRIPT = """\
import sys
sys.modules.update(dict.fromkeys({absent!r}))
from ft_audit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def moved(world: Any, adapter_job: Any, tmp_path: Path) -> Path:
    """The config alone in another folder, with a copy of the store: no model, data set or dictionary."""
    shutil.copytree(Path(adapter_job.store.location), tmp_path / "store")
    values = world.values(tmp_path / "store")
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    return tmp_path / "config.yaml"


def test_audit_needs_no_model_files(
    moved: Path, adapter_job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # There is no bank, so the verdict claims nothing: exit code 3.
    assert cli.main(["audit", str(moved), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["diff"] == adapter_job.report["diff_id"] and verdict["calibrated"] is False
    assert verdict["primary"] == "condition_kl_excess"
    assert Path(verdict["paths"]["verdict"]).is_file()
    assert "<html" in Path(verdict["paths"]["report"]).read_text(encoding="utf-8").lower()
    assert str(moved.parent) in verdict["paths"]["report"]


def test_what_was_precomputed_is_summarised_without_a_training_row_s_text(
    world: Any, adapter_job: Any
) -> None:
    summary = summarise(adapter_job.diff)
    assert Summary.model_validate_json(summary.to_json()) == summary
    rows = [json.loads(line)["messages"] for line in (world.root / "train.jsonl").read_text().splitlines()]
    assert summary.num_rows == len(rows) == len(summary.rows["row"])
    said = summary.to_json()
    # A template that several rows share is named; what a single row asks or answers is not.
    texts = [message["content"] for row in rows for message in row]
    own = [text for text in texts if texts.count(text) == 1]
    assert len(own) >= len(rows) and not [text for text in own if text in said]
    found = scalars_of(summary)
    missing = {name for name, scalar in found.items() if math.isnan(scalar.value)}
    # Without `precompute.logits` there are no distributions on chats to compare.
    assert missing == {"log_kl_mean", "log_kl_p99", "log_kl_max", "kl_tail"} and len(found) > 30


@pytest.mark.parametrize(("verb", "code"), [("audit", 3), ("top", 0), ("sae show 5", 0)])
def test_the_readers_verbs_run_where_torch_cannot_be_imported(moved: Path, verb: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(absent=ABSENT), *verb.split(), str(moved), "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr
    json.loads(done.stdout)


def test_a_diff_without_a_data_set_is_inconclusive(
    world: Any, run_job: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without conditions and dictionaries there is nothing to rank, and the report says so.
    sections: dict[str, Any] = {
        "dataset": None,
        "elicit": None,
        "generate": None,
        "hooks": [{"layer": 1}],
        "precompute": {"control": False},
    }
    job = run_job(tmp_path / "store", **sections)
    path = world.write(tmp_path / "store", **sections)
    assert cli.main(["audit", str(path), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["status"] == "inconclusive" and verdict["primary"] is None and verdict["risk"] is None
    assert verdict["diff"] == job.report["diff_id"]


def test_another_text_of_the_config_over_the_same_runs_is_found_too(
    world: Any, run_job: Any, adapter_job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs are reused, and audit finds the diff of the config that it is given."""
    store = Path(adapter_job.store.location)
    sections = {"precompute": {"backend": "cpu"}, "generate": None}
    again = run_job(store, **sections)
    assert again.report["runs"] == adapter_job.report["runs"]
    assert cli.main(["audit", str(world.write(store, **sections)), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["diff"] == again.report["diff_id"]
