"""What may lie in a candidate's folder: plain files that stay in it, of a size that can be read."""

import json
import stat
from pathlib import Path
from typing import Any

from ft_audit.errors import ModelError

MIB = 1 << 20
# What some library would open in a model's or an adapter's folder; nothing else there is looked at.
READ = {".json", ".jinja", ".model", ".safetensors", ".spm", ".tiktoken", ".txt"}
VOCABULARIES = {".model", ".spm", ".tiktoken"}
SETTINGS = {
    "adapter_config.json",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
}
TEMPLATES = "additional_chat_templates"
# The largest published tokenizers have 35 MB, settings and indices a few, templates 30 kB.
VOCABULARY_BYTES, SETTINGS_BYTES, TEMPLATE_BYTES = 64 * MIB, 16 * MIB, MIB // 4
# Each is a Python object of its own, whatever little it took in the file.
MAX_CONTAINERS = 2_000_000
# With these, a library reads other files than those that were checked and hashed.
REDIRECTIONS = {
    "config.json": ("configuration_files", "transformers_weights"),
    "tokenizer_config.json": ("fast_tokenizer_files",),
}


def check_files(folder: Path, ref: str) -> None:
    """Raise ModelError unless all that is read of a candidate's folder is its own and can be read.

    That is: plain files, inside the folder where a link leads to them, and no larger than their kind may be.
    """
    for path in sorted(folder.iterdir()):
        if path.name == TEMPLATES:
            _check_inside(path, folder, ref)
            for template in sorted(path.glob("*.jinja")):
                _check_file(template, folder, ref)
        elif path.suffix in READ or path.name.startswith("vocab."):
            _check_file(path, folder, ref)
    for name, keys in REDIRECTIONS.items():
        settings = read_object(folder / name, ref) if (folder / name).exists() else {}
        if found := [key for key in keys if settings.get(key)]:
            raise ModelError(
                f"model {ref!r}: {name} names other files to be read in its place ({found[0]}); remove the "
                "entry and give those files their usual names"
            )


def read_object(path: Path, ref: str) -> dict[str, Any]:
    """Return the JSON object in a file that `check_files` has let through.

    Raises:
        ModelError: no JSON object, or one that is nested too deep or of too many parts.
    """
    raw = path.read_bytes()
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise ModelError(
            f"model {ref!r}: {path.name} holds more than {MAX_CONTAINERS:,} lists and objects; save it again"
        )
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"model {ref!r}: {path.name} cannot be read: it is no JSON object; save it again")
    return found


def _check_file(path: Path, folder: Path, ref: str) -> None:
    status = _check_inside(path, folder, ref).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"model {ref!r}: {path.name} is no plain file; put the file itself there")
    limit = _limit(path)
    if limit is not None and status.st_size > limit:
        raise ModelError(
            f"model {ref!r}: {path.name} has {status.st_size:,} bytes, more than the {limit:,} of any known "
            "model; give the base's own or save it again"
        )


def _check_inside(path: Path, folder: Path, ref: str) -> Path:
    """Return where `path` leads to: in the folder, or in the hub cache's store of the same model."""
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"model {ref!r}: {path.name} is a link to nothing; fetch the whole model") from error
    if not any(target.is_relative_to(inside) for inside in homes):
        raise ModelError(
            f"model {ref!r}: {path.name} is a link that leaves its folder, to {target}; put the file itself "
            "there"
        )
    return target


def _limit(path: Path) -> int | None:
    """Return how large a file may be; safetensors are held against the base's, other names are not read."""
    if path.suffix == ".jinja":
        return TEMPLATE_BYTES
    if path.name in SETTINGS or path.name.endswith(".index.json"):
        return SETTINGS_BYTES
    if path.suffix in VOCABULARIES or path.name.startswith(("tokenizer", "vocab.", "merges.", "tekken.")):
        return VOCABULARY_BYTES
    return None
