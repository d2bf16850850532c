"""Peak memory in a process of its own: dense buffers are seen, and the result is left out."""

import pytest
import torch

from ft_audit.benchmarks.encode import measure_memory
from ft_audit.benchmarks.encoding.case import Case, draw_dictionary, synthetic_residuals
from ft_audit.benchmarks.encoding.memory import can_measure, peaks

CPU = torch.device("cpu")
ROWS, WIDTH = 256, 16_384
MB = 1e6


@pytest.fixture(scope="module")
def case() -> Case:
    if not can_measure(CPU):
        pytest.skip("no resettable peak memory on this platform")
    x_TD = synthetic_residuals(ROWS, 32)
    return Case("wide", "synthetic", x_TD, draw_dictionary(x_TD, WIDTH, l0=10.0))


@pytest.mark.slow
def test_a_dense_pipeline_needs_its_buffers_and_little_else(case: Case) -> None:
    name = f"torch-{ROWS}-DF-2d"
    memory = peaks(case, name, [], [ROWS])[name, ROWS]
    buffers = ROWS * WIDTH * 3  # bfloat16 and bool
    assert 0.8 * buffers < memory.extra < 2.5 * buffers
    assert 20 * 5 * ROWS < memory.result < 20 * 20 * ROWS


@pytest.mark.slow
def test_every_figure_of_memory_is_there(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_audit.benchmarks.encode.MEMORY_ROWS", (ROWS, 2 * ROWS))
    monkeypatch.setattr("ft_audit.benchmarks.encode.MEMORY_PEERS", ("delphi-bf16",))
    found = {figure.name: figure.value for figure in measure_memory(case)}
    assert found.keys() == {
        *(f"{name}/{kind}_memory_{rows}" for name, rows in
          (("ours", ROWS), ("ours", 2 * ROWS), ("delphi-bf16", ROWS)) for kind in ("extra", "prepared")),
        "extra_memory", "extra_share_of_dense",
    }  # fmt: skip
    assert found["extra_memory"] == max(found[f"ours/extra_memory_{rows}"] or 0 for rows in (ROWS, 2 * ROWS))
    # delphi's dense latents are bfloat16, and several stand at once.
    assert (found[f"delphi-bf16/extra_memory_{ROWS}"] or 0) * MB > 2 * ROWS * WIDTH * 2
