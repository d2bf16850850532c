"""Quantised checkpoints: made plain by their own library while they are loaded, or refused by name."""

import inspect
from typing import Any

import torch
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer

from ft_audit.errors import ModelError

# Distribution names where they differ from the method's.
LIBRARIES = {
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "fp8": "accelerate",
    "mxfp4": "accelerate",
}
# What transformers leaves on a model that it has made plain, and what then stops it from moving or saving it.
MARKS = ("hf_quantizer", "quantization_method")


def ask_for_plain_weights(config: Any, ref: str) -> str | None:
    """Return the quantisation that `config` names, set up to be undone while loading, or None without one.

    Raises:
        ModelError: a method that cannot be undone; the message names it and the fix.
    """
    stated = getattr(config, "quantization_config", None)
    if stated is None:
        return None
    values = dict(stated if isinstance(stated, dict) else stated.to_dict())
    method = str(values.get("quant_method", ""))
    if method == "bitsandbytes":
        method += "_4bit" if values.get("load_in_4bit") else "_8bit"
    kind: Any = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    if kind is not None and "dequantize" in inspect.signature(kind).parameters:
        config.quantization_config = {**values, "dequantize": True}
        return method
    if _dequantize(method):
        return method
    raise ModelError(
        f"model {ref!r}: it is quantised with {method or 'an unnamed method'}, which transformers cannot "
        "turn into plain weights; dequantise it with its own library and give the folder saved in bfloat16"
    )


def _dequantize(method: str) -> bool:
    quantizer: Any = AUTO_QUANTIZER_MAPPING.get(method)
    plain: Any = HfQuantizer
    return quantizer is not None and quantizer._dequantize is not plain._dequantize


def why_not(method: str, ref: str, error: Exception) -> ModelError:
    """Return the error of a quantised model that could not be loaded: what is needed for it."""
    needed = LIBRARIES.get(method, method)
    return ModelError(
        f"model {ref!r}: it is quantised with {method} and cannot be turned into plain weights here: "
        f"{error}; install {needed}, or dequantise it elsewhere and give the folder saved in bfloat16"
    )


def make_plain(model: Any, method: str, dtype: torch.dtype) -> Any:
    """Return `model` with plain weights in `dtype`, and nothing on it that says it was quantised."""
    if getattr(model, "hf_quantizer", None) is not None and _dequantize(method):
        model = model.dequantize(dtype=dtype)
    for name in MARKS:
        if name in vars(model):
            delattr(model, name)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(dtype)
