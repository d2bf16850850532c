"""Reads a sealed tree: each file is verified when it is read, and the array of a damaged one is named."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ft_audit.engine.store.place import Place
from ft_audit.engine.store.seal import CHECKSUMS_NAME, NUM_THREADS, FileEntry, checksum, read_seal
from ft_audit.errors import StoreError


@dataclass(frozen=True, slots=True)
class SealedTree:
    """A folder, the checksum of its list of checksums, and the words of its errors."""

    place: Place
    folder: str
    seal: str
    what: str
    """Such as "segment 00002 of run 0123456789abcdef"."""
    remedy: str
    _files: dict[str, FileEntry] = field(default_factory=dict, repr=False, compare=False)

    def read(self, path: str) -> bytes:
        """Return one file's bytes; StoreError when it is missing or not what was written."""
        entry = self.files()[path]
        content = self.place.read(f"{self.folder}/{path}")
        if content is None:
            raise StoreError(f"{self.what} is damaged: {self._name(path)} is missing: {self.remedy}")
        if not entry.fits(content):
            raise StoreError(
                f"{self.what} is damaged: {self._name(path)} does not have its checksum: {self.remedy}"
            )
        return content

    def files(self) -> dict[str, FileEntry]:
        """Return what the tree must hold; StoreError when the list itself is missing or damaged."""
        if not self._files:
            content = self.place.read(f"{self.folder}/{CHECKSUMS_NAME}")
            where = f"{self.place.location}/{self.folder}"
            if content is None and not self.place.files(self.folder):
                raise StoreError(f"{self.what} is missing ({where}): {self.remedy}")
            if content is None or checksum(content) != self.seal:
                state = "is missing" if content is None else "does not have its checksum"
                raise StoreError(f"{self.what} is damaged: {where}/{CHECKSUMS_NAME} {state}: {self.remedy}")
            self._files.update(read_seal(content))
        return self._files

    def damaged(self) -> list[str]:
        """Return what is wrong with the tree, a line for each file, having read all of it."""
        try:
            files = self.files()
        except StoreError as error:
            return [str(error)]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            problems = [problem for problem in pool.map(self._problem, files) if problem is not None]
        start = len(self.folder) + 1
        there = {file.key[start:] for file in self.place.files(self.folder)}
        extra = sorted(there - files.keys() - {CHECKSUMS_NAME})
        return problems + [
            f"{self.what} is damaged: {self._name(path)} does not belong there: {self.remedy}"
            for path in extra
        ]

    def _problem(self, path: str) -> str | None:
        try:
            self.read(path)
        except StoreError as error:
            return str(error)
        return None

    def _name(self, path: str) -> str:
        """Return the file's array, where it has one of its own, and where the file lies."""
        where = f"{self.place.location}/{self.folder}/{path}"
        array, _, name = path.rpartition("/")
        alone = not array and name.startswith("c")
        return f"array {array} ({where})" if array else f"chunk {name} ({where})" if alone else where
