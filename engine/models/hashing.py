"""Identity hashes of files: what a run-id says about weights, tokenizer and adapter."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of one file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_files(folder: Path, patterns: Iterable[str]) -> str:
    """Return one hex sha256 over the names and contents of the files in `folder` that match `patterns`.

    A file's name within the folder counts, not where the folder lies: the same model in two places is one.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256_file(path)}\0".encode())
    return digest.hexdigest()
