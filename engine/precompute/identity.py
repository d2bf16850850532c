"""What determines the bytes of a run: everything here is hashed into its id."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ft_audit.engine.diff.groups import Groups
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.vllm import vllm_version
from ft_audit.engine.store import HookEntry
from ft_audit.engine.tokens.batches import BatchPlan
from ft_audit.engine.tokens.tokenize import TokenizedSuite

EVIDENCE = 4  # raised whenever the same inputs would leave other evidence
PAIR = 2  # the same for the statistics of two models side by side
LIBRARIES = ("torch", "transformers", "tokenizers", "peft")


def versions(runner: str) -> dict[str, str]:
    """Return the installed version of each library that takes part in a forward pass."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    if runner == "vllm":
        found["vllm"] = vllm_version()
    return found


def device_class(device: torch.device) -> str:
    """Return whose arithmetic a run has: the GPU's name, or the CPU's capability and number of threads."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()} x{torch.get_num_threads()}"
    return device.type


def run_identity(
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    tokens: TokenizedSuite,
    plan: BatchPlan,
    hooks: Sequence[HookEntry],
    *,
    tokenizer_sha256: str,
    dtype: str,
    device_class: str,
    encoders: Sequence[str],
    libraries: dict[str, str],
    runner: str,
    to_the_end: bool,
    keep_features: bool,
    keep_tokens: bool,
) -> dict[str, Any]:
    """Return the identity of one model over one suite; equal identities mean equal bytes."""
    template = str(tokenizer.chat_template or "")
    ids = hashlib.sha256(tokens.ids_T.tobytes() + tokens.indptr_P1.tobytes() + tokens.mask_T.tobytes())
    return {
        "evidence": EVIDENCE,
        "weights": source.weights_sha256,
        "tokenizer": tokenizer_sha256,
        "template": hashlib.sha256(template.encode()).hexdigest(),
        "suite": tokens.suite.sha256,
        "tokens": ids.hexdigest(),
        "plan": plan.sha256,
        "hooks": [hook.model_dump(mode="json") for hook in hooks],
        "dtype": dtype,
        "device": device_class,
        "encoders": list(encoders),
        "runner": runner,
        "to_the_end": to_the_end,
        "keep": {"features": keep_features, "tokens": keep_tokens},
        "versions": libraries,
    }


def pair_identity(
    base_run: str, tuned_run: str, plan: BatchPlan, groups: Groups, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the identity of two runs compared token by token; theirs says everything of models and suite."""
    plain = hashlib.sha256(json.dumps(groups.plain()).encode()).hexdigest()
    return {
        "pair": PAIR,
        "runs": [base_run, tuned_run],
        "plan": plan.sha256,
        "groups": plain,
        "settings": settings,
    }
