"""Loading a model for auditing: safetensors only, no code of its own, finite weights."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ft_audit.engine.models.lora import check_keys, check_lora
from ft_audit.engine.models.reference import ModelSource
from ft_audit.errors import ConfigError, ModelError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# What transformers raises for a configuration, a file or a quantisation that it cannot read.
UNREADABLE = (ValueError, OSError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)


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
    except UNREADABLE as error:
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


@torch.inference_mode(False)  # a caller inside it would get weights that can never leave it
def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the full model in eval mode; an adapter is loaded unmerged over its base.

    Unmerged, because adding a small low-rank product into bfloat16 weights rounds part of it away.

    Raises:
        ModelError: an architecture that needs code of its own, missing, NaN or infinite weights, a wrong
            adapter.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
        loader: Any = AutoModelForCausalLM  # its declared result knows nothing of the loading info
        model, info = loader.from_pretrained(
            source.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=_attention(config),
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise ModelError(f"model {source.ref!r}: cannot be loaded: {error}") from error
    if missing := sorted(info["missing_keys"]):
        # transformers would start them at random and only log it.
        raise ModelError(
            f"model {source.ref!r}: its safetensors lack {missing[0]} (and {len(missing) - 1} more weights); "
            "save the whole model again"
        )
    model.to(device).eval()
    check_finite(model, source.ref)
    loaded: PreTrainedModel = attach_adapter(model, source) if source.adapter is not None else model
    return loaded


@torch.inference_mode(False)
def _attention(config: Any) -> str:
    """Return the fastest exact attention of the family; never what a model's own files ask for."""
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if family._supports_sdpa else "eager"


def attach_adapter(model: Any, source: ModelSource) -> Any:
    """Return `model` with the adapter of `source` on it, on the same resident weights.

    Raises:
        ModelError: the adapter does not fit this base, is not a LoRA, or holds NaN or infinite weights.
    """
    from peft import PeftConfig, PeftModel

    assert source.adapter is not None, "the caller checks that the source is an adapter"
    try:
        config = PeftConfig.from_pretrained(str(source.adapter))
    except (*UNREADABLE, TypeError) as error:
        raise ModelError(f"model {source.ref!r}: its adapter_config.json cannot be read: {error}") from error
    check_lora(config, source.ref)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # check_keys refuses them
            # peft asks transformers for a name that it is about to drop.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            wrapped = PeftModel.from_pretrained(model, source.adapter, autocast_adapter_dtype=False)
    except (*UNREADABLE, TypeError) as error:
        raise ModelError(f"model {source.ref!r}: the adapter does not fit its base: {error}") from error
    check_keys(wrapped, source.adapter, source.ref)
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
