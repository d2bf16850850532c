"""Putting folders and files on the disk so that each is there whole or not at all."""

import fcntl
import hashlib
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ft_audit.errors import StoreError

TEMPORARY_SUFFIX = ".tmp"


def fsync_path(path: Path) -> None:
    """Wait until the disk holds the file's bytes, or the folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Wait until the disk holds every file under the folder and every folder's list of names."""
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in (*names, ".")]
    # All at once: a disk takes hundreds of small files in one go; one by one, each is waited for.
    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in pool.map(fsync_path, paths):
            pass


def replace_file(path: Path, content: bytes) -> None:
    """Write the file under a temporary name and rename it, so that a reader sees the old or the new one."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.write_bytes(content)
    fsync_path(temporary)
    os.replace(temporary, path)
    fsync_path(path.parent)


def publish_folder(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name; nothing may stand there."""
    fsync_tree(temporary)
    os.rename(temporary, final)
    fsync_path(final.parent)


def remove_temporaries(folder: Path) -> list[str]:
    """Delete what an interrupted writer left directly under the folder; return the names."""
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(TEMPORARY_SUFFIX))
    for name in names:
        remove(folder / name)
    return names


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def tree_checksum(folder: Path) -> str:
    """Return the sha256 over every file's relative name, length and bytes, in the order of the names."""
    digest = hashlib.sha256()
    names = sorted(
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    )
    for name in names:
        content = (folder / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """Return the sha256 of one file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class FolderLock:
    """An exclusive lock on a folder, held until released; the system drops it when the process dies."""

    def __init__(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            # The folder itself is locked: a lock file inside would be one more file to compare.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StoreError(
                f"another process is writing {folder}: wait until it has finished, or stop it"
            ) from None
        # Closing the handle unlocks; the finalizer also closes it when the owner is forgotten.
        self._close = weakref.finalize(self, os.close, handle)

    @property
    def held(self) -> bool:
        return self._close.alive

    def release(self) -> None:
        """Give the folder up; a second time does nothing."""
        self._close()
