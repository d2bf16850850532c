"""Where a store lies: the few things that a folder of this machine and an object store both can do.

Keys are relative paths with slashes, such as `runs/<id>/manifest.json`; a folder is a key's beginning.
"""

from typing import NamedTuple, Protocol

TEMPORARY_SUFFIX = ".tmp"


class StoredFile(NamedTuple):
    """A file of a store; `modified` in seconds since 1970."""

    key: str
    size: int
    modified: float


class Lock(Protocol):
    """The sole right to write something, for as long as it is held."""

    @property
    def held(self) -> bool: ...

    def check(self) -> None:
        """Raise StoreError when the right was lost to another process."""

    def release(self) -> None:
        """Give the right up; a second time does nothing."""


class Place(Protocol):
    """A local folder or an object store; every failure is a StoreError that says what to do."""

    @property
    def location(self) -> str:
        """The folder or `s3://bucket/prefix`, as `Store` takes it."""

    def exists(self) -> bool:
        """Whether the place itself is there: a folder, or a bucket that answers."""

    def read(self, key: str) -> bytes | None:
        """The file's bytes, or None when there is no such file."""

    def read_small(self, key: str, limit: int) -> bytes | None:
        """The bytes of a file that anyone may have put there; StoreError where it has more than `limit` or is
        no plain file, such as a link."""

    def put(self, key: str, content: bytes) -> None:
        """Write a file that nobody reads before `publish` or `move`, and that is safe only after it."""

    def replace(self, key: str, content: bytes) -> None:
        """Write a file so that a reader sees the old or the new one, whole."""

    def files(self, folder: str) -> list[StoredFile]:
        """All files under the folder, in the order of their keys."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders directly under the folder, sorted."""

    def delete(self, folder: str) -> None:
        """Delete a folder with all that is in it, or one file; nothing happens when it is not there."""

    def clear(self, folder: str) -> None:
        """Delete all that is in the folder."""

    def modified(self, key: str) -> float:
        """When the file was written last, in seconds since 1970."""

    def stage(self, folder: str) -> str:
        """The folder under which to put the files of a tree before `publish`, unlike any other process's."""

    def publish(self, staged: str, folder: str) -> None:
        """Give a staged tree, whose list of checksums was put last, its place."""

    def move(self, source: str, target: str, last: str) -> None:
        """Put a folder in the place of another; on an object store the file `last` is the last to appear."""

    def lock(self, folder: str) -> Lock:
        """The sole right to write under the folder; StoreError names who has it."""
