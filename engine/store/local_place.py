"""A store in a folder of this machine: synced files, and folders that appear by a rename."""

import errno
import os
import secrets
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ft_audit.engine.store.failures import explained
from ft_audit.engine.store.folder_lock import FolderLock
from ft_audit.engine.store.place import TEMPORARY_SUFFIX, StoredFile
from ft_audit.engine.store.seal import CHECKSUMS_NAME, NUM_THREADS
from ft_audit.errors import StoreError

# Files below this are synced together when their tree is published, larger ones while others are made.
SMALL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """Implements `Place`; `location` is an absolute path."""

    location: str

    def exists(self) -> bool:
        return Path(self.location).is_dir()

    def read(self, key: str) -> bytes | None:
        with explained("reading", self._text(key)):
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_small(self, key: str, limit: int) -> bytes | None:
        with explained("reading", self._text(key)):
            try:
                # Not even a pipe that nobody writes to may hold the reader up.
                handle = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise StoreError(f"{self._text(key)} is a link: put the file itself there") from None
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise StoreError(f"{self._text(key)} is no plain file: delete it")
                content = file.read(limit + 1)
        if len(content) > limit:
            raise StoreError(f"{self._text(key)} has more than {limit:,} bytes: delete it")
        return content

    def put(self, key: str, content: bytes) -> None:
        with explained("writing", self._text(key)):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content, sync=len(content) >= SMALL_BYTES)

    def replace(self, key: str, content: bytes) -> None:
        with explained("writing", self._text(key)):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
            try:
                _write(temporary, content, sync=True)
                os.replace(temporary, path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            _fsync(path.parent)

    def files(self, folder: str) -> list[StoredFile]:
        with explained("listing", self._text(folder)):
            found = []
            for parent, _, names in os.walk(self._path(folder)):
                for name in names:
                    path = Path(parent, name)
                    try:
                        facts = path.stat()
                    except FileNotFoundError:
                        if not path.is_symlink():
                            continue  # a temporary file that has gone meanwhile
                        facts = path.lstat()
                    key = path.relative_to(self.location).as_posix()
                    found.append(StoredFile(key, facts.st_size, facts.st_mtime))
            return sorted(found)

    def folders(self, folder: str) -> list[str]:
        with explained("listing", self._text(folder)):
            path = self._path(folder)
            return sorted(inner.name for inner in path.iterdir() if inner.is_dir()) if path.is_dir() else []

    def delete(self, folder: str) -> None:
        with explained("deleting", self._text(folder)):
            path = self._path(folder)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def clear(self, folder: str) -> None:
        with explained("deleting", self._text(folder)):
            for path in sorted(self._path(folder).iterdir()):
                self.delete(path.relative_to(self.location).as_posix())

    def modified(self, key: str) -> float:
        with explained("reading", self._text(key)):
            return self._path(key).stat().st_mtime

    def stage(self, folder: str) -> str:
        return f"{folder}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"

    def publish(self, staged: str, folder: str) -> None:
        with explained("publishing", self._text(folder)):
            _fsync_tree(self._path(staged))
            # Two workers may bring the same segment: the same bytes that are there already stay.
            if self.read(f"{staged}/{CHECKSUMS_NAME}") == self.read(f"{folder}/{CHECKSUMS_NAME}"):
                shutil.rmtree(self._path(staged))
            else:
                self._swap(staged, folder)

    def move(self, source: str, target: str, last: str) -> None:
        with explained("publishing", self._text(target)):
            _fsync_tree(self._path(source))
            self._swap(source, target)

    def lock(self, folder: str) -> FolderLock:
        with explained("locking", self._text(folder)):
            path = self._path(folder)
            path.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(path)
            # Files that a killed holder of this lock was about to rename.
            for leftover in path.glob(f"*{TEMPORARY_SUFFIX}"):
                if leftover.is_file():
                    leftover.unlink()
            return lock

    def _swap(self, source: str, target: str) -> None:
        # A folder cannot replace a folder in one step: for a moment there is none, never half of one.
        final = self._path(target)
        old = self._path(f"{target}.old-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        if final.exists():
            final.rename(old)
        os.rename(self._path(source), final)
        _fsync(final.parent)
        if old.exists():
            shutil.rmtree(old)

    def _path(self, key: str) -> Path:
        return Path(self.location, key)

    def _text(self, key: str) -> str:
        return f"{self.location}/{key}"


def _write(path: Path, content: bytes, *, sync: bool) -> None:
    with open(path, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        if sync:
            os.fsync(file.fileno())


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync_tree(folder: Path) -> None:
    """Wait until the disk holds the names in every folder, and every small file."""
    paths = []
    for parent, _, names in os.walk(folder):
        small = [path for name in names if (path := Path(parent, name)).stat().st_size < SMALL_BYTES]
        paths += [*small, Path(parent)]
    # All at once: a disk takes many small writes in one go; one by one, each is waited for.
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for _ in pool.map(_fsync, paths):
            pass
