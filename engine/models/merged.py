"""A base that is itself an adapter over another model: merged once into a folder of the cache."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ft_audit.engine.models.cache import cache_dir
from ft_audit.errors import ModelError

if TYPE_CHECKING:
    from ft_audit.engine.models.reference import ModelSource

MERGER = 1  # raised whenever merging would write other weights, and then precompute's EVIDENCE too


def base_of(folder: Path, ref: str) -> str:
    """Return the reference of the model that an adapter's own config says it stands on.

    Raises:
        ModelError: it names none.
    """
    try:
        named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = named["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {ref!r}: its adapter_config.json names no base model") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"model {ref!r}: its adapter_config.json names no base model")
    return base


def merge_adapter(source: "ModelSource", cache: Path | None = None) -> Path:
    """Return a folder (bf16 safetensors, tokenizer) with the adapter of `source` added into its base.

    The product is added in float32 and rounded once. The folder is named after both identities, so a second
    call finds it.

    Raises:
        ModelError: the adapter does not fit its base.
    """
    from ft_audit.engine.models.load import load_model, load_tokenizer

    assert source.adapter is not None, "the caller checks that the source is an adapter"
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "peft")}
    identity = json.dumps([source.weights_sha256, source.tokenizer_sha256, MERGER, versions], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:24]
    folder = (cache or cache_dir()) / "merged" / name
    if folder.exists():
        return folder
    print(f"merging {source.ref} into its base (once)", file=sys.stderr)
    model = load_model(source, torch.float32, torch.device("cpu"))
    merged = model.merge_and_unload()  # type: ignore[operator]
    merged.to(torch.bfloat16)
    merged.config.dtype = torch.bfloat16
    partial = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    try:
        merged.save_pretrained(partial)
        load_tokenizer(source).save_pretrained(partial)
        partial.rename(folder)
    except OSError:
        # Another process may have finished the same merge first.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
