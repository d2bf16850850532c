"""What a candidate's safetensors hold, by their headers alone: no tensor is read."""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ft_audit.engine.models.files import read_object
from ft_audit.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# A hundred thousand tensors take a tenth of it.
HEADER_BYTES = 16 << 20
PREFIX_BYTES = 8
PICKLES = {b"PK\x03\x04": "a zip archive, as PyTorch's pickles are", b"\x80": "a pickle, which may run code"}
# transformers reads a folder with such a file by other rules than its index.
RANKS = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")


Held = dict[str, tuple[int, ...]]
"""The shape of every tensor by its name."""


def read_headers(paths: list[Path], ref: str) -> Held:
    """Return what these files hold.

    Raises:
        ModelError: a file that is no safetensors file, or whose header does not describe it, or a tensor
            that is held twice.
    """
    held: Held = {}
    for path in paths:
        found = _read_header(path, ref)
        if twice := sorted(found.keys() & held.keys()):
            raise ModelError(f"model {ref!r}: {path.name} holds {twice[0]} a second time; save it again")
        held |= found
    return held


def weight_files(folder: Path, ref: str) -> list[Path]:
    """Return the safetensors of a full checkpoint that are read: the whole one, those of the index, or all.

    Raises:
        ModelError: an index that names a file outside the folder or one that is not there; files saved by
            rank.
    """
    present = sorted(folder.glob("*.safetensors"))
    if ranks := [path.name for path in present if RANKS.match(path.name)]:
        raise ModelError(f"model {ref!r}: {ranks[0]} is one rank's part; save the model with save_pretrained")
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if not (folder / INDEX).exists():
        return present
    named = set(_weight_map(folder, ref).values())
    for name in sorted(named):
        inside = Path(name).name == name and name.endswith(".safetensors")
        if not inside or not (folder / name).is_file():
            why = "" if inside else f" ({name!r} is no safetensors file of this folder)"
            raise ModelError(
                f"model {ref!r}: {INDEX} names {Path(name).name}, which is not there{why}; fetch the whole "
                "model or save it again"
            )
    return [folder / name for name in sorted(named)]


def check_index(folder: Path, held: Held, ref: str) -> None:
    """Raise ModelError if the index, where one is read, names a tensor that no file holds."""
    if (folder / WHOLE).exists() or not (folder / INDEX).exists():
        return
    if lacking := sorted(_weight_map(folder, ref).keys() - held.keys()):
        raise ModelError(
            f"model {ref!r}: {INDEX} names {lacking[0]} (and {len(lacking) - 1} more tensors) that its files "
            "do not hold; fetch the whole model or save it again"
        )


def _weight_map(folder: Path, ref: str) -> dict[str, str]:
    found = read_object(folder / INDEX, ref).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ModelError(
            f"model {ref!r}: {INDEX} cannot be read: it has no weight_map of file names; save the model again"
        )
    return found


def _read_header(path: Path, ref: str) -> Held:
    with path.open("rb") as file:
        start = file.read(PREFIX_BYTES)
        length, size = int.from_bytes(start, "little"), path.stat().st_size
        if len(start) < PREFIX_BYTES or length > min(size - PREFIX_BYTES, HEADER_BYTES):
            for magic, kind in PICKLES.items():
                if start.startswith(magic):
                    raise ModelError(f"model {ref!r}: {path.name} is {kind}; save it as safetensors")
            raise ModelError(
                f"model {ref!r}: {path.name} is no safetensors file: it declares a header of {length:,} "
                f"bytes in {size:,} (at most {HEADER_BYTES:,} are read); save it again"
            )
        _check_names(file.read(length), path, ref)
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"model {ref!r}: {path.name} cannot be read as safetensors ({error}); save it again"
        ) from error


def _check_names(header: bytes, path: Path, ref: str) -> None:
    """Refuse a header that names a tensor twice: which one counts depends on who reads it."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ModelError(f"model {ref!r}: {path.name} names a tensor twice in its header; save it again")
        return found

    try:
        json.loads(header, object_pairs_hook=once)
    except ModelError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"model {ref!r}: {path.name} has a header that is no JSON ({error}); save it again"
        ) from error
