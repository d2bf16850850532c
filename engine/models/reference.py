"""What a model reference means: a folder, a GGUF file, a hub id or an adapter, checked and hashed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_audit.engine.config.refs import resolve_ref
from ft_audit.engine.models.candidate import check_adapter, check_checkpoint
from ft_audit.engine.models.files import check_files
from ft_audit.engine.models.gguf import convert_gguf, is_gguf, source_sha256
from ft_audit.engine.models.hashing import sha256_files
from ft_audit.engine.models.merged import base_of, merge_adapter
from ft_audit.errors import ModelError

TOKENIZER_FILES = (
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model on this disk: `folder` holds config, tokenizer and safetensors, `adapter` a PEFT LoRA."""

    ref: str
    format: str  # "folder", "gguf", "hub", "merged" or "adapter"
    folder: Path
    adapter: Path | None
    weights_sha256: str
    tokenizer_sha256: str
    is_candidate: bool = False
    """Not trusted: its tokenizer is tried, and renders chats, where it can be stopped."""

    @property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`."""
        loaded: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return loaded


def _fetch(ref: str) -> Path:
    """Return the hub snapshot of `ref`: configuration, tokenizer and safetensors, never pickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(ref, allow_patterns=list(HUB_FILES)))
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        HFValidationError,
        OSError,
    ) as error:
        raise ModelError(
            f"model {ref!r}: neither a path on this machine nor a hub model that can be fetched "
            f"({type(error).__name__}); give a local folder, a GGUF file or package:NAME/FILE"
        ) from error


def _check_folder(ref: str, folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"model {ref!r}: {folder} has no config.json; give the folder that holds it")
    try:
        readable = isinstance(json.loads((folder / "config.json").read_text(encoding="utf-8")), dict)
    except ValueError:
        readable = False
    if not readable:
        raise ModelError(f"model {ref!r}: {folder / 'config.json'} is no JSON object; save the model again")
    if not any(folder.glob("*.safetensors")):
        pickles = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".ckpt", ".pt", ".pth"}]
        why = f"only {pickles[0]}, which is a pickle and may run code" if pickles else "no weights"
        raise ModelError(
            f"model {ref!r}: {folder} holds {why}; save it with safe_serialization as safetensors"
        )


def resolve_model(ref: str, base_dir: Path, base: ModelSource | None = None) -> ModelSource:
    """Return the model that `ref` names, its files on this disk and its identity hashes taken.

    A GGUF file is converted once into the cache. A PEFT adapter stands on `base`; without one it is a base
    itself, merged into the model that its own config names.

    What stands on a `base` is a candidate, whose files are checked before anything reads them.

    Raises:
        ModelError: nothing there, weights that are not safetensors, an adapter without a base, or a candidate
            whose files are not what they say or would cost more than a fine-tune of its base can.
    """
    return _resolve(ref, base_dir, base, ())


def _resolve(ref: str, base_dir: Path, base: ModelSource | None, above: tuple[Path, ...]) -> ModelSource:
    """Resolve a model on which the adapters in the folders `above` stand, one on the other."""
    target = resolve_ref(ref, base_dir)
    if isinstance(target, str):
        folder, form = _fetch(target), "hub"
    elif is_gguf(target):
        folder, form = convert_gguf(target), "gguf"
    elif target.is_dir():
        folder, form = target, "folder"
    else:
        raise ModelError(f"model {ref!r}: {target} is neither a model folder nor a GGUF file")
    # What a GGUF file was converted to is our own.
    measure = base.folder if base is not None and form != "gguf" else None
    if measure is not None:
        check_files(folder, ref)
    if (folder / "adapter_config.json").exists():
        return _resolve_merged(ref, folder, above) if base is None else _resolve_adapter(ref, folder, base)
    _check_folder(ref, folder)
    if measure is not None:
        check_checkpoint(ref, folder, measure)
    return ModelSource(
        ref=ref,
        format=form,
        folder=folder,
        adapter=None,
        # The GGUF file's own hash: what transformers writes around the same weights differs by its version.
        weights_sha256=source_sha256(folder)
        if form == "gguf"
        else sha256_files(folder, ("*.safetensors", "config.json")),
        tokenizer_sha256=sha256_files(folder, TOKENIZER_FILES),
        is_candidate=base is not None,
    )


def _resolve_merged(ref: str, folder: Path, above: tuple[Path, ...]) -> ModelSource:
    here = folder.resolve()
    if here in above:
        raise ModelError(f"model {ref!r}: by its adapter_config.json its base is in the end itself")
    under = _resolve(base_of(folder, ref), folder, None, (*above, here))
    adapter = _resolve_adapter(ref, folder, under, is_candidate=False)
    merged = merge_adapter(adapter)
    return ModelSource(
        ref=ref,
        format="merged",
        folder=merged,
        adapter=None,
        # The sources' own hashes: what the merge writes differs by its libraries' last bits.
        weights_sha256=adapter.weights_sha256,
        tokenizer_sha256=adapter.tokenizer_sha256,
    )


def _resolve_adapter(ref: str, folder: Path, base: ModelSource, *, is_candidate: bool = True) -> ModelSource:
    assert base.adapter is None, "adapters do not stand on adapters: such a base is merged"
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(f"model {ref!r}: {folder} has no adapter_model.safetensors (pickles are refused)")
    if is_candidate:
        check_adapter(ref, folder, base.folder)
    adapter = sha256_files(folder, ("adapter_config.json", "adapter_model.safetensors"))
    own_tokenizer = any(folder.glob("tokenizer*.json"))
    return ModelSource(
        ref=ref,
        format="adapter",
        folder=base.folder,
        adapter=folder,
        weights_sha256=f"{base.weights_sha256}+{adapter}",
        tokenizer_sha256=sha256_files(folder, TOKENIZER_FILES) if own_tokenizer else base.tokenizer_sha256,
        is_candidate=is_candidate,
    )
