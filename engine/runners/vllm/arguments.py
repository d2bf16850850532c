"""What vLLM is started with: how deep, with how much cache, with which adapter."""

from typing import Any

import torch

from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.vllm.engine import MAX_PROMPTS
from ft_audit.engine.runners.vllm.support import lora_rank, text_config

ROOM = __name__.rpartition(".")[0]
BLOCK = 32  # tokens of one prompt in a block of the cache, at most


def common(
    source: ModelSource,
    dtype: torch.dtype,
    longest: int,
    tokens_per_batch: int,
    tensor_parallel: int,
    *,
    depth: int | None = None,
    num_ids: int = 0,
) -> dict[str, Any]:
    """Return what an engine is started with, for `longest` tokens of a prompt and its answer together.

    Raises:
        ModelError: an adapter that vLLM cannot apply.
    """
    lora: dict[str, Any] = {}
    if source.adapter is not None:
        lora = {"enable_lora": True, "max_lora_rank": lora_rank(source), "max_loras": 1}
    return {
        "model": str(source.folder),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        # A model's own sampling defaults are not ours.
        "generation_config": "vllm",
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": longest,
        "max_num_batched_tokens": max(2, tokens_per_batch),
        # vLLM keeps two places for every prompt when it hands out states.
        "max_num_seqs": max(1, min(MAX_PROMPTS, tokens_per_batch // 2)),
        "enable_chunked_prefill": True,
        # A prompt that finds its beginning cached would be computed in other pieces than one that does not.
        "enable_prefix_caching": False,
        "tensor_parallel_size": tensor_parallel,
        "kv_cache_memory_bytes": _cache_bytes(
            text_config(source), depth, num_ids, max(tokens_per_batch, longest), dtype.itemsize
        ),
        "seed": 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **lora,
    }


def _cache_bytes(config: Any, depth: int | None, num_ids: int, tokens: int, itemsize: int) -> int:
    """Return the size of a cache for keys, values and hidden states of so many tokens.

    vLLM gives hidden states blocks of their own beside those of keys and values, hence the factor 2; every
    prompt may leave one block nearly empty.
    """
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    blocks = int(config.num_hidden_layers) if depth is None else depth
    per_token = (2 * blocks * kv_heads * head + num_ids * width) * itemsize
    return 2 * (tokens + MAX_PROMPTS * BLOCK) * per_token


def first_blocks(source: ModelSource, depth: int) -> dict[str, Any]:
    """Return the arguments with which vLLM builds and loads the first `depth` blocks only.

    All of them where the configuration describes more than a language model.
    """
    config = source.config
    count = config.get("num_hidden_layers")
    if count is None or depth >= int(count):
        return {}
    per_block = {
        name: value[:depth]
        for name, value in config.items()
        if isinstance(value, list) and len(value) == int(count) and "layer" in name
    }
    return {
        "hf_overrides": {"num_hidden_layers": depth, **per_block},
        "load_format": "ft_audit_first_blocks",
        # Naming it makes vLLM's worker import the module that knows the format.
        "worker_extension_cls": f"{ROOM}.loader.LoaderExtension",
    }
