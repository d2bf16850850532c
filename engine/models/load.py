"""Loading a model for auditing: safetensors only, no code of its own, finite weights."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.lora import MERGE, check_keys, check_lora, in_blocks, keys_of
from ft_audit.engine.models.quantized import ask_for_plain_weights, make_plain, why_not
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.models.unreadable import UNREADABLE as UNREADABLE
from ft_audit.engine.models.vocabulary import try_tokenizer
from ft_audit.engine.tokens.chats_apart import render_apart
from ft_audit.errors import ConfigError, ModelError

SHARDED = "sharded"  # over all accelerators, then the memory of the processor, then the disk
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` and `sharded` take cuda, then mps, then cpu.

    Of a sharded model it is where token ids go and activations arrive; see `pick_device_map`.

    Raises:
        ConfigError: a named accelerator that this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in ("auto", SHARDED):
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present.get(name.split(":")[0], False):
        raise ConfigError(f"models.device: {name!r} is not available here; use auto or cpu")
    return torch.device(name)


def pick_device_map(name: str) -> str | None:
    """Return how `load_model` spreads a model on the device called `name`; None for not at all."""
    return "auto" if name == SHARDED else None


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; an adapter that brings its own gets its own.

    A candidate's own renders chats in a process of its own, whose time and memory end.

    Raises:
        ModelError: no readable tokenizer, or a candidate's that takes too much time or memory to build.
    """
    own = source.adapter is not None and any(source.adapter.glob("tokenizer*.json"))
    folder = source.adapter if source.adapter is not None and own else source.folder
    is_foreign = source.is_candidate and (own or source.adapter is None)
    if is_foreign:
        try_tokenizer(folder, source.ref)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelError(
            f"model {source.ref!r}: no tokenizer that can be read in {folder}: {error}"
        ) from error
    if is_foreign:
        render_apart(tokenizer, source.ref)
    return tokenizer


def check_finite(model: nn.Module, ref: str) -> None:
    """Raise ModelError naming the first parameter of `model` that holds a NaN or an infinity.

    Weights that lie on disk are read for it; those of a head that was left out are not there to be checked.
    """
    once = {name for name, _ in model.named_parameters()}  # a tied weight has one of its names here
    for path, module in model.named_modules():
        with align_module_device(module):
            for name, parameter in module.named_parameters(path, recurse=False):
                if parameter.is_meta or name not in once:
                    continue
                # A sum is NaN or infinite if any element is, and needs no temporary of the parameter's size.
                if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)) and not bool(
                    torch.isfinite(parameter.detach()).all()
                ):
                    raise ModelError(
                        f"model {ref!r}: parameter {name} holds NaN or infinite values; re-export the model"
                    )


@torch.inference_mode(False)  # a caller inside it would get weights that can never leave it
def load_model(
    source: ModelSource,
    dtype: torch.dtype,
    device: torch.device,
    *,
    num_layers: int | None = None,
    head: bool = True,
    device_map: str | dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Return the model in eval mode; an adapter is loaded unmerged over its base.

    Unmerged, because adding a small low-rank product into bfloat16 weights rounds part of it away. Of a model
    of which only the first `num_layers` blocks are read, nothing else is loaded, neither of the base nor of
    the adapter; without `head` an output head with weights of its own stays on the meta device, empty. A
    quantised model gets plain weights. `device_map` spreads the weights over several devices as accelerate
    does ("auto" fills them in turn, and then the memory of the processor); `device` is then not looked at.

    Raises:
        ModelError: an architecture that needs code of its own, missing, surplus, NaN or infinite weights, a
            quantisation that cannot be undone, a wrong adapter.
    """
    config = _config(source, num_layers)
    method = ask_for_plain_weights(config, source.ref)
    head = head or bool(getattr(config, "tie_word_embeddings", True))
    try:
        model, info, unread = _read(source, config, dtype, device_map, head)
        if method is not None:
            model = make_plain(model, method, dtype)
    except UNREADABLE as error:
        if method is not None:
            raise why_not(method, source.ref, error) from error
        raise ModelError(f"model {source.ref!r}: cannot be loaded: {error}") from error
    _check_all_read(source, info, unread, num_layers)
    if device_map is None:
        (model if head else getattr(model, model.base_model_prefix)).to(device)
    model.eval()
    check_finite(model, source.ref)
    loaded: PreTrainedModel = attach_adapter(model, source) if source.adapter is not None else model
    return loaded


def _config(source: ModelSource, num_layers: int | None) -> Any:
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
        text = config.get_text_config()
        # Gemma 3n keeps a part of every block's input in one table of all blocks: it is loaded whole.
        whole = num_layers is None or getattr(text, "hidden_size_per_layer_input", None)
        if not whole and num_layers < text.num_hidden_layers:
            # Which block has which attention stays as the whole model has it.
            kinds = getattr(text, "layer_types", None)
            text.num_hidden_layers = num_layers
            if kinds:
                text.layer_types = kinds[:num_layers]
    except UNREADABLE as error:
        raise ModelError(f"model {source.ref!r}: cannot be loaded: {error}") from error
    return config


def _read(
    source: ModelSource, config: Any, dtype: torch.dtype, device_map: Any, head: bool
) -> tuple[Any, dict[str, Any], set[str]]:
    """Return the model, what transformers says of its loading, and the names of what was left out."""
    attention = _attention(config)
    settings: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
        "attn_implementation": attention,
        "output_loading_info": True,
    }
    if device_map is not None:
        settings |= {"device_map": device_map, "offload_folder": tempfile.mkdtemp(prefix="ft-audit-offload-")}
    with _without_report():
        if head:
            loader: Any = AutoModelForCausalLM  # its declared result knows nothing of the loading info
            model, info = loader.from_pretrained(source.folder, **settings)
            return model, info, set()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        prefix = model.base_model_prefix
        unread = {name for name, _ in model.named_parameters() if not name.startswith(f"{prefix}.")}
        backbone, info = type(getattr(model, prefix)).from_pretrained(source.folder, **settings)
        setattr(model, prefix, backbone)
        return model, info, unread


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from printing a table of weights that are missing or left out: both are checked."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _check_all_read(
    source: ModelSource, info: dict[str, Any], unread: set[str], num_layers: int | None
) -> None:
    if missing := sorted(info["missing_keys"]):
        # transformers would start them at random and only log it.
        raise ModelError(
            f"model {source.ref!r}: its safetensors lack {missing[0]} (and {len(missing) - 1} more weights); "
            "save the whole model again"
        )
    total = _total_layers(source)
    # A multimodal model's file may call a part by a longer name than the model does.
    surplus = [
        key
        for key in sorted(info["unexpected_keys"])
        if not key.endswith(tuple(unread)) and (num_layers is None or not in_blocks(key, num_layers, total))
    ]
    if surplus:
        # They would be left out of everything that is measured, and nobody would know what they do.
        raise ModelError(
            f"model {source.ref!r}: its safetensors hold {surplus[0]} (and {len(surplus) - 1} more weights) "
            "that this architecture has no place for; save the model with the class it was trained as"
        )


def _total_layers(source: ModelSource) -> int:
    return int(_config(source, None).get_text_config().num_hidden_layers)


def _attention(config: Any) -> str:
    """Return the fastest exact attention of the family; never what a model's own files ask for."""
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if family._supports_sdpa else "eager"


def attach_adapter(model: Any, source: ModelSource) -> Any:
    """Return `model` with the adapter of `source` on it, on the same resident weights.

    Where only the first blocks are loaded, what the adapter holds for the others is left out; an adapter for
    those alone leaves the model as it is.

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
    empty = any(parameter.is_meta for parameter in model.parameters())
    if empty and hasattr(model, "hf_device_map"):
        raise ModelError(
            f"model {source.ref!r}: its base does not fit the accelerators, and an adapter cannot be put on "
            f"weights that lie elsewhere: {MERGE}"
        )
    first, end = anatomy(model).num_layers, _total_layers(source)
    held = keys_of(source.adapter)
    if first < end and all(in_blocks(key, first, end) for key in held):
        return model
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # check_keys refuses them
            # What an adapter holds for a head that was left out stays out as well.
            warnings.filterwarnings("ignore", message="for .*: copying from a non-meta parameter")
            # peft asks transformers for a name that it is about to drop.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            wrapped = PeftModel.from_pretrained(model, source.adapter, autocast_adapter_dtype=False)
    except (*UNREADABLE, TypeError) as error:
        raise ModelError(f"model {source.ref!r}: the adapter does not fit its base: {error}") from error
    check_keys(wrapped, {key for key in held if not in_blocks(key, first, end)}, source.ref)
    if not empty and not hasattr(model, "hf_device_map"):
        wrapped.to(model.device)
    wrapped.eval()
    check_finite(wrapped, source.ref)
    return wrapped
