"""What an adapter may be: a plain LoRA that leaves every weight of its base as it is."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from ft_audit.errors import ModelError

# What these fields say is either in the adapter's own weights or says nothing about a forward pass. Any other
# field switches on a variant that rewrites the base, or that acts only where PEFT's own forward runs.
UNDERSTOOD = {
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "target_modules",
    "exclude_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "use_rslora",
    "modules_to_save",
    "init_lora_weights",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "megatron_core",  # read only together with megatron_config, which is refused
    "trainable_token_indices",
    "loftq_config",  # read only by its own init_lora_weights, which is refused
    "eva_config",
    "use_dora",
    "runtime_config",
    "lora_bias",
    "target_parameters",
    "ensure_weight_tying",
}
# PiSSA, CorDA, OLoRA, LoftQ and LoRA-GA subtract their start from the base's weights when they are loaded.
HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
MERGE = "merge it into its base and give the full model"


def check_lora(config: Any, ref: str) -> None:
    """Raise ModelError unless the PEFT config describes a LoRA that can be switched off without a trace."""
    kind = str(config.peft_type).rpartition(".")[2]
    if kind != "LORA":
        raise ModelError(f"model {ref!r}: a {kind} adapter; only LoRA adapters are read: {MERGE}")
    task = str(config.task_type).rpartition(".")[2]
    if task not in ("CAUSAL_LM", "None"):
        raise ModelError(f"model {ref!r}: an adapter for {task}; only causal language models are audited")
    if config.init_lora_weights not in HARMLESS_STARTS:
        raise ModelError(
            f"model {ref!r}: init_lora_weights {config.init_lora_weights!r} changes the base's own weights: "
            f"convert it to a plain LoRA when saving, or {MERGE}"
        )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in UNDERSTOOD or value == field.default or not value:
            continue
        raise ModelError(f"model {ref!r}: {field.name} {value!r} is no plain LoRA: {MERGE}")


def read_lora(adapter: Path, ref: str) -> Any:
    """Return the checked PEFT config of an adapter's folder.

    Raises:
        ModelError: an `adapter_config.json` that cannot be read or describes no plain LoRA.
    """
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (ValueError, OSError, KeyError, RuntimeError, ImportError, TypeError) as error:
        raise ModelError(f"model {ref!r}: its adapter_config.json cannot be read: {error}") from error
    check_lora(config, ref)
    return config


def keys_of(adapter: Path) -> set[str]:
    """Return the names of the tensors in an adapter's file."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        return set(file.keys())


def in_blocks(key: str, first: int, end: int) -> bool:
    """Return whether a tensor's name is one of a block from `first` on and before `end`."""
    found = BLOCK.search(key)
    return found is not None and first <= int(found[1]) < end


def check_keys(wrapped: Any, held: set[str], ref: str) -> None:
    """Raise ModelError unless the file holds exactly the weights that the adapter's config asks for.

    PEFT itself leaves what is missing at its random start, drops what fits nowhere, and writes a tensor that
    is named like one of the base's over it.
    """
    from peft import get_peft_model_state_dict

    asked = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if strange := sorted(held - asked):
        raise ModelError(
            f"model {ref!r}: the adapter does not fit its base: {_some(strange)} in its file, but no part "
            "of this LoRA; give the base it was trained on, or save it without embedding layers"
        )
    if missing := sorted(asked - held):
        raise ModelError(
            f"model {ref!r}: the adapter does not fit its base: {_some(missing)} not in its file; give the "
            "base it was trained on, or save it again"
        )


def _some(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more are" if len(names) > 1 else f"{names[0]} is"
