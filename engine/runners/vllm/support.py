"""What vLLM can read, said before anything is loaded: sites, models and adapters, each refused by name."""

import json
from collections.abc import Sequence
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig

from ft_audit.engine.models.load import UNREADABLE
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.sites import check_layers
from ft_audit.errors import ConfigError, ModelError

# LoRAConfig.max_lora_rank takes these values only.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
OTHER_RUNNER = "give precompute.runner hf"
MERGE = f"merge it into its base and give the full model, or {OTHER_RUNNER}"


def text_config(source: ModelSource) -> Any:
    """Return transformers' configuration of the model's language part.

    Raises:
        ModelError: transformers cannot read it.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelError(f"model {source.ref!r}: its config.json cannot be read: {error}") from error
    return config.get_text_config()


def extraction_id(hook: HookPoint, num_layers: int) -> int:
    """Return vLLM's number for the stream at `hook`: 0 before the first block, L + 1 after block L.

    Raises:
        ConfigError: a site that vLLM does not hand out, or a block that the model does not have.
    """
    if hook.site not in ("resid_pre", "resid_post"):
        raise ConfigError(
            f"hooks: vLLM hands out the stream before and after a block, not {hook.name}: {OTHER_RUNNER}, "
            "or take resid_pre or resid_post"
        )
    check_layers([hook], num_layers)
    return hook.layer + (hook.site == "resid_post")


def extraction_ids(hooks: Sequence[HookPoint], num_layers: int) -> tuple[int, ...]:
    """Return the ids of `hooks`, ascending and without repeats, as vLLM hands their states out."""
    return tuple(sorted({extraction_id(hook, num_layers) for hook in hooks}))


def check_prompt_length(source: ModelSource, max_prompt_tokens: int) -> None:
    """Raise ConfigError if prompts may be longer than the model's positions reach."""
    reach = getattr(text_config(source), "max_position_embeddings", None)
    if reach is not None and max_prompt_tokens > int(reach):
        raise ConfigError(
            f"precompute.max_prompt_tokens: prompts (and answers) of {max_prompt_tokens} tokens, but model "
            f"{source.ref!r} has {reach} positions"
        )


def check_architecture(source: ModelSource) -> None:
    """Raise ModelError for attention from which vLLM cannot extract, by the configuration alone."""
    config = source.config
    rank = {**config, **(config.get("text_config") or {})}.get("kv_lora_rank")
    if rank:
        raise ModelError(
            f"model {source.ref!r}: vLLM cannot extract hidden states beside multi-head latent attention "
            f"(kv_lora_rank {rank}): {OTHER_RUNNER}"
        )


def lora_rank(source: ModelSource) -> int:
    """Return the smallest rank that vLLM can be started with for the adapter of `source`.

    Raises:
        ModelError: an adapter that vLLM would refuse or apply in part, with what to do instead.
    """
    assert source.adapter is not None, "the caller checks that the source is an adapter"
    try:
        config = json.loads((source.adapter / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(source.adapter / "adapter_model.safetensors", framework="pt") as file:
            names = [str(name) for name in file.keys()]  # noqa: SIM118  not a dict
    except (OSError, ValueError) as error:
        raise ModelError(f"model {source.ref!r}: its adapter cannot be read: {error}") from error
    # The first three vLLM would pass over without a word.
    for field in (
        "trainable_token_indices",
        "fan_in_fan_out",
        "target_parameters",
        "modules_to_save",
        "use_dora",
    ):
        if config.get(field):
            raise ModelError(f"model {source.ref!r}: vLLM cannot apply {field} {config[field]!r}: {MERGE}")
    outside = sorted(name for name in names if ".layers." not in name)
    if outside:
        raise ModelError(
            f"model {source.ref!r}: {outside[0]} adapts no block; vLLM is only trusted with blocks: {MERGE}"
        )
    rank = max([int(config.get("r", 0)), *map(int, (config.get("rank_pattern") or {}).values())])
    fitting = [allowed for allowed in RANKS if allowed >= rank]
    if not fitting:
        raise ModelError(f"model {source.ref!r}: rank {rank} is over vLLM's {RANKS[-1]}: {MERGE}")
    return fitting[0]
