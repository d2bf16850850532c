"""Starting vLLM for one model and its hooks."""

from collections.abc import Sequence

import torch

from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.vllm.arguments import common, first_blocks
from ft_audit.engine.runners.vllm.engine import VllmEngine
from ft_audit.engine.runners.vllm.norm import final_norm
from ft_audit.engine.runners.vllm.runner import VllmRunner
from ft_audit.engine.runners.vllm.support import (
    check_architecture,
    check_prompt_length,
    extraction_ids,
    text_config,
)


def open_vllm_runner(
    source: ModelSource,
    hooks: Sequence[HookPoint],
    *,
    dtype: torch.dtype,
    device: torch.device,
    max_prompt_tokens: int,
    tokens_per_batch: int = 4096,
    final: bool = False,
    threads: int | None = None,
    tensor_parallel: int = 1,
) -> VllmRunner:
    """Start vLLM for the model and return its runner; an adapter runs on its base, by vLLM's LoRA support.

    The engine holds the blocks up to the last hook and nothing after, or all of them if `final`, which
    `run(final=True)` needs. What a runner with an adapter gives without it is its `base()`.

    Raises:
        MissingExtraError: no vLLM here.
        ConfigError: a hook that vLLM does not hand out, prompts longer than the model's positions.
        ModelError: a model or an adapter that vLLM cannot run, or from which it cannot extract.
    """
    num_layers = int(text_config(source).num_hidden_layers)
    ids = extraction_ids(hooks, num_layers)
    if final:
        ids = tuple(sorted({*ids, num_layers}))
    check_prompt_length(source, max_prompt_tokens)
    check_architecture(source)
    depth = max(1, ids[-1])
    # One token is sampled after each prompt; nothing reads it.
    arguments = common(
        source, dtype, max_prompt_tokens + 1, tokens_per_batch, tensor_parallel, depth=depth, num_ids=len(ids)
    )
    engine = VllmEngine(source, {**arguments, **first_blocks(source, depth)}, ids, threads=threads)
    try:
        norm = final_norm(source, dtype, device) if final else None
        runner = VllmRunner(engine, hooks, ids, device=device, adapter=source.adapter, norm=norm)
        runner.probe()
    except BaseException:
        engine.close()
        raise
    return runner
