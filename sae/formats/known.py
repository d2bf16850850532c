"""Owns the list of formats that are read: by which file each is known, and which of its files it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ft_audit.errors import SaeError
from ft_audit.sae.formats import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_1,
    llama_scope,
    openai,
    qwen_scope,
    sae_lens,
    sparsify,
)
from ft_audit.sae.formats.build import Told
from ft_audit.sae.formats.gemma_scope_config import CONFIG_FILE
from ft_audit.sae.formats.gemma_scope_crosscoder import layer_file
from ft_audit.sae.jumprelu_sae import JumpReluSae


@dataclass(frozen=True, slots=True)
class Format:
    """One published layout. A dictionary is a folder with one of `marks`, or a file whose name ends so."""

    name: str
    marks: tuple[str, ...]
    load: Callable[[Path, Told], JumpReluSae]
    beside: tuple[str, ...] = ()
    """Further files that are read where they are there."""
    is_file: bool = False


FORMATS = (
    Format(
        "gemma-scope-2",
        (gemma_scope.PARAMS_FILE, layer_file(0)),
        gemma_scope.load_gemma_scope,
        (CONFIG_FILE, "params_layer_*.safetensors"),
    ),
    Format("gemma-scope-1", (gemma_scope_1.PARAMS_FILE,), gemma_scope_1.load_gemma_scope_1),
    Format("sae-lens", (sae_lens.WEIGHTS_FILE,), sae_lens.load_sae_lens, (sae_lens.CONFIG_FILE,)),
    Format(
        "sparsify",
        (sparsify.WEIGHTS_FILE,),
        sparsify.load_sparsify,
        (sparsify.CONFIG_FILE, f"../{sparsify.TRAINING_FILE}"),
    ),
    Format(
        "dictionary-learning",
        (dictionary_learning.WEIGHTS_FILE, dictionary_learning.FORK_FILE),
        dictionary_learning.load_dictionary_learning,
        (dictionary_learning.CONFIG_FILE,),
    ),
    Format(
        "llama-scope", (llama_scope.WEIGHTS_FILE,), llama_scope.load_llama_scope, (llama_scope.CONFIG_FILE,)
    ),
    Format("qwen-scope", (".sae.pt",), qwen_scope.load_qwen_scope, is_file=True),
    Format("openai", (".pt",), openai.load_openai, is_file=True),
)


def find_format(path: Path) -> Format:
    """The format of the folder or file at `path`; raises SaeError, with what is known, where it has none."""
    for candidate in FORMATS:
        if candidate.is_file and path.is_file() and path.name.endswith(candidate.marks):
            return candidate
        if not candidate.is_file and any((path / mark).is_file() for mark in candidate.marks):
            return candidate
    known = ", ".join(
        f"{' or '.join(f'*{mark}' if candidate.is_file else mark for mark in candidate.marks)} "
        f"({candidate.name})"
        for candidate in FORMATS
    )
    raise SaeError(f"{path}: no dictionary of a known format; a folder is known by one of {known}")


def files_to_fetch(folder: str) -> list[str]:
    """Patterns of the files in a repository's folder, or of the file, that any format reads."""
    if folder.endswith(".pt"):
        return [folder]
    prefix = "" if folder in ("", ".") else f"{folder}/"
    above = prefix.rstrip("/").rpartition("/")[0]
    patterns = []
    for candidate in FORMATS:
        if not candidate.is_file:
            for name in (*candidate.marks, *candidate.beside):
                if not name.startswith("../"):
                    patterns.append(prefix + name)
                elif prefix:
                    patterns.append(f"{above}/{name[3:]}".lstrip("/"))
    return sorted(set(patterns))
