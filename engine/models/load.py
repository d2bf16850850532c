"""Loading a model for auditing: safetensors only, no code of its own, finite weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ft_audit.engine.models.reference import ModelSource
from ft_audit.errors import ConfigError, ModelError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` takes cuda, then mps, then cpu.

    Raises:
        ConfigError: a named accelerator that this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present.get(name.split(":")[0], False):
        raise ConfigError(f"models.device: {name!r} is not available here; use auto or cpu")
    return torch.device(name)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; an adapter that brings its own gets its own.

    Raises:
        ModelError: no readable tokenizer.
    """
    own = source.adapter is not None and any(source.adapter.glob("tokenizer*.json"))
    folder = source.adapter if own else source.folder
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"model {source.ref!r}: no tokenizer that can be read in {folder}: {error}"
        ) from error


def check_finite(model: nn.Module, ref: str) -> None:
    """Raise ModelError naming the first parameter of `model` that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        # A sum is NaN or infinite if any element is, and needs no temporary of the parameter's size.
        if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)) and not bool(
            torch.isfinite(parameter.detach()).all()
        ):
            raise ModelError(
                f"model {ref!r}: parameter {name} holds NaN or infinite values; re-export the model"
            )


def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the full model in eval mode; an adapter is loaded unmerged over its base.

    Unmerged, because adding a small low-rank product into bfloat16 weights rounds part of it away.

    Raises:
        ModelError: an architecture that needs code of its own, NaN or infinite weights, a wrong adapter.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"model {source.ref!r}: cannot be loaded: {error}") from error
    model.to(device).eval()
    check_finite(model, source.ref)
    loaded: PreTrainedModel = attach_adapter(model, source) if source.adapter is not None else model
    return loaded


def attach_adapter(model: Any, source: ModelSource) -> Any:
    """Return `model` with the adapter of `source` on it, on the same resident weights.

    Raises:
        ModelError: the adapter does not fit this base, is not a LoRA, or holds NaN or infinite weights.
    """
    from peft import PeftConfig, PeftModel

    assert source.adapter is not None, "the caller checks that the source is an adapter"
    config = PeftConfig.from_pretrained(str(source.adapter))
    if str(config.peft_type).rpartition(".")[2] != "LORA":
        raise ModelError(f"model {source.ref!r}: a {config.peft_type} adapter; only LoRA adapters are read")
    try:
        wrapped = PeftModel.from_pretrained(model, source.adapter, autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"model {source.ref!r}: the adapter does not fit its base: {error}") from error
    wrapped.to(model.device).eval()
    check_finite(wrapped, source.ref)
    return wrapped


@contextmanager
def without_adapter(model: Any) -> Iterator[Any]:
    """Run the block with the model's adapter switched off, if it has one: the base, on the same weights."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield model
    else:
        yield model


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where a causal language model keeps its parts."""

    backbone: nn.Module
    """Runs the blocks and the final norm."""
    parent: nn.Module
    """The module whose `layers` (or `h`) attribute is the list of blocks."""
    attribute: str
    head: nn.Module
    num_layers: int
    width: int


def anatomy(model: Any) -> Anatomy:
    """Return where `model`'s blocks, backbone and head are, whatever the family calls them.

    Raises:
        ModelError: no list with as many blocks as the configuration says.
    """
    causal: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    text = causal.config.get_text_config()
    count, width = int(text.num_hidden_layers), int(text.hidden_size)
    for parent in causal.modules():
        for attribute, child in parent.named_children():
            if (
                isinstance(child, nn.ModuleList)
                and len(child) == count
                and attribute in ("layers", "h", "blocks")
            ):
                backbone = getattr(causal, causal.base_model_prefix)
                return Anatomy(backbone, parent, attribute, causal.get_output_embeddings(), count, width)
    raise ModelError(
        f"{type(causal).__name__}: no list of {count} blocks found; this architecture is not supported"
    )
