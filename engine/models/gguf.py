"""GGUF files as input: dequantised once into a Hugging Face folder in the cache."""

import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

from ft_audit.engine.models.cache import cache_dir
from ft_audit.engine.models.hashing import sha256_file
from ft_audit.errors import ModelError

CONVERTER = 1  # raised whenever the conversion would write other bytes
MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Return whether `path` is a file that starts with GGUF's magic number."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def convert_gguf(path: Path, cache: Path | None = None) -> Path:
    """Return a Hugging Face folder (bf16 safetensors, tokenizer, chat template) with `path`'s weights.

    Every tensor is dequantised by transformers' own GGUF reader and rounded once to bfloat16. The folder
    is named after the file's sha256 and the libraries that read it, so a second call only hashes the file.

    Raises:
        ModelError: `path` is no GGUF file, or of an architecture that transformers cannot read.
    """
    if not is_gguf(path):
        raise ModelError(f"{path}: not a GGUF file (it does not start with b'GGUF')")
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "gguf")}
    key = f"{sha256_file(path)[:16]}-c{CONVERTER}-t{versions['transformers']}-g{versions['gguf']}"
    folder = (cache or cache_dir()) / "gguf" / key
    if (folder / "ft_audit_source.json").exists():
        return folder
    print(f"converting {path.name} to a Hugging Face folder (once)", file=sys.stderr)
    partial = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"{path}: transformers {versions['transformers']} cannot read this GGUF file: {error}"
        ) from error
    # transformers marks a GGUF load as quantised and then refuses to save it, though its weights are plain.
    model.hf_quantizer = None
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    for name in ("is_quantized", "quantization_method"):
        if name in vars(model):
            delattr(model, name)
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "ft_audit_source.json").write_text(
        json.dumps({"source": path.name, "sha256": sha256_file(path), **versions}, sort_keys=True)
    )
    try:
        partial.rename(folder)
    except OSError:  # another process finished the same conversion first
        shutil.rmtree(partial)
    return folder
