"""GGUF files as input: dequantised once into a Hugging Face folder in the cache."""

import importlib.metadata
import json
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

from ft_audit.engine.models.cache import cache_dir
from ft_audit.engine.models.hashing import sha256_file
from ft_audit.errors import ModelError

CONVERTER = 1  # raised whenever the conversion would write other weights, and then precompute's EVIDENCE too
MAGIC = b"GGUF"
DONE = "ft_audit_source.json"  # written last: a folder that holds it is whole
# What the reader raises on a file that is cut off, damaged or of an architecture it does not know.
UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    OSError,
    struct.error,
)


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
    if (folder / DONE).exists():
        return folder
    print(f"converting {path.name} to a Hugging Face folder (once)", file=sys.stderr)
    try:
        tokenizer, model = _read(path)
    except UNREADABLE as error:
        raise ModelError(
            f"{path}: transformers {versions['transformers']} cannot read this GGUF file: {error}"
        ) from error
    partial = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    try:
        _save(tokenizer, model, partial)
        source = {"source": path.name, "sha256": sha256_file(path), **versions}
        (partial / DONE).write_text(json.dumps(source, sort_keys=True))
        partial.rename(folder)
    except OSError:
        # Another process may have finished the same conversion first.
        if not (folder / DONE).exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def source_sha256(folder: Path) -> str:
    """Return the sha256 of the GGUF file that a converted folder was made from."""
    return str(json.loads((folder / DONE).read_text())["sha256"])


def _read(path: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the fp32 model of a GGUF file, with nothing from the files around it.

    transformers takes a folder and a name, and would also read the folder's tokenizer_config.json or adapter.
    """
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / path.name).symlink_to(path.resolve())
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=path.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            alone,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
    return tokenizer, model


def _save(tokenizer: Any, model: Any, folder: Path) -> None:
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
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
