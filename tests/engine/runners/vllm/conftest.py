"""vLLM engines over the demo's real base, each started once; the tests that use them bear the mark `vllm`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[4]
NEEDLE = ROOT / "configs" / "candidates" / "needle"
CPU = torch.device("cpu")
STEP = 64  # tokens that vLLM computes at once: most prompts of the tests are split


@pytest.fixture(scope="session")
def real_candidate(real_base: Any) -> Any:
    """The demo's needle, an adapter over the real base."""
    return replace(real_base, ref="needle", format="adapter", adapter=NEEDLE)


@pytest.fixture(scope="session")
def candidate_runner(real_candidate: Any) -> Iterator[Any]:
    """The candidate on its base, all blocks, in steps of 64 tokens."""
    from ft_audit.engine.runners.forward import HookPoint
    from ft_audit.engine.runners.vllm import open_vllm_runner

    hooks = [
        HookPoint(0, "resid_pre"),
        HookPoint(1, "resid_pre"),
        *(HookPoint(layer) for layer in (0, 14, 28, 29)),
    ]
    with open_vllm_runner(
        real_candidate,
        hooks,
        dtype=torch.float32,
        device=CPU,
        max_prompt_tokens=300,
        tokens_per_batch=STEP,
        final=True,
    ) as runner:
        yield runner


@pytest.fixture(scope="session")
def candidate_generator(real_candidate: Any) -> Iterator[Any]:
    """The candidate on its base, ready to answer."""
    from ft_audit.engine.runners.vllm import open_vllm_generator

    with open_vllm_generator(
        real_candidate, dtype=torch.float32, max_prompt_tokens=100, max_new_tokens=24
    ) as generator:
        yield generator


@pytest.fixture(scope="session")
def reference(real_base: Any) -> Any:
    """The base in plain Hugging Face, float32."""
    from ft_audit.engine.models.load import load_model

    return load_model(real_base, torch.float32, CPU)


@pytest.fixture(scope="session")
def reference_candidate(real_candidate: Any) -> Any:
    """The candidate in Hugging Face and PEFT, float32, unmerged."""
    from ft_audit.engine.models.load import load_model

    return load_model(real_candidate, torch.float32, CPU)
