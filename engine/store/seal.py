"""Sealed trees: folders whose every file is listed with its checksum, so that each can be verified alone."""

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType
from typing import NamedTuple, Self

from ft_audit.engine.store.canonical import pretty_json
from ft_audit.engine.store.place import Place

CHECKSUMS_NAME = "checksums.json"
# Waiting for the disk or the network takes most of a thread's time.
NUM_THREADS = 8
# Files in hand at most: what bounds the memory of a writer that is faster than its disk.
MAX_WAITING = 16


class FileEntry(NamedTuple):
    """What a file must be: its bytes' sha256 and their number."""

    sha256: str
    size: int

    def fits(self, content: bytes) -> bool:
        return len(content) == self.size and checksum(content) == self.sha256


def checksum(content: bytes) -> str:
    """Return the sha256 of the bytes."""
    return hashlib.sha256(content).hexdigest()


def seal_bytes(files: Mapping[str, FileEntry]) -> bytes:
    """Return the list of checksums as a file, the same bytes for the same content."""
    return pretty_json({path: {"sha256": entry.sha256, "size": entry.size} for path, entry in files.items()})


def read_seal(content: bytes) -> dict[str, FileEntry]:
    """Return what `seal_bytes` was given; the bytes must be verified before."""
    return {path: FileEntry(entry["sha256"], entry["size"]) for path, entry in json.loads(content).items()}


class TreeWriter:
    """Puts files under one folder, several at once, and seals them; used inside a `with`."""

    def __init__(self, place: Place, folder: str) -> None:
        self._place, self._folder = place, folder
        self._pool = ThreadPoolExecutor(NUM_THREADS)
        self._free = BoundedSemaphore(MAX_WAITING)
        self._entries: dict[str, Future[FileEntry]] = {}
        self._failure: BaseException | None = None

    def put(self, path: str, make: Callable[[], bytes]) -> None:
        """Write what `make` returns, which is called in another thread; waits when too much is in hand.

        Raises what went wrong with a file before: nobody writes gigabytes to a disk that is full.
        """
        assert path not in self._entries, f"{path} is written twice"
        self._free.acquire()
        if self._failure is not None:
            self._free.release()
            raise self._failure
        self._entries[path] = self._pool.submit(self._write, path, make)

    def seal(self) -> str:
        """Wait for all files, write their list, and return its checksum; raises what failed in a thread."""
        content = seal_bytes({path: entry.result() for path, entry in self._entries.items()})
        self._place.put(f"{self._folder}/{CHECKSUMS_NAME}", content)
        return checksum(content)

    def close(self) -> None:
        """Drop what is not written yet and wait for the rest."""
        self._pool.shutdown(cancel_futures=True)

    def _write(self, path: str, make: Callable[[], bytes]) -> FileEntry:
        try:
            content = make()
            self._place.put(f"{self._folder}/{path}", content)
            return FileEntry(checksum(content), len(content))
        except BaseException as failure:
            self._failure = failure
            raise
        finally:
            self._free.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
