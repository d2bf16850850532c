"""The files of an audit, wherever they lie: in a store of either kind, or moved elsewhere on this machine."""

from pathlib import Path
from typing import NamedTuple

from ft_audit.engine.store import Store
from ft_audit.errors import StoreError


class AuditFile(NamedTuple):
    """`STORE/audits/ID/NAME`; a file of this machine may also lie outside of any store."""

    location: str

    @property
    def store(self) -> Store:
        """The store that the file lies in; StoreError when it lies in none."""
        return Store(self._parts()[0])

    def read(self) -> bytes:
        """The file's bytes; StoreError when there is none."""
        if "://" in self.location:
            root, audit, name = self._parts()
            return Store(root).read_audit_file(audit, name)
        if not Path(self.location).is_file():
            raise StoreError(f"{self.location}: no such verdict: run `ft-audit audit` first")
        return Path(self.location).read_bytes()

    def write(self, content: bytes) -> None:
        """Write the file so that a reader sees the old or the new one, whole."""
        if "://" in self.location:
            root, audit, name = self._parts()
            Store(root).put_audit_file(audit, name, content)
        else:
            path = Path(self.location)
            Store(path.parent).place.replace(path.name, content)

    def modified(self) -> float | None:
        """When the file was written, in seconds since 1970; None when there is none."""
        if "://" not in self.location:
            path = Path(self.location)
            return path.stat().st_mtime if path.is_file() else None
        root, audit, name = self._parts()
        key = f"audits/{audit}/{name}"
        found = Store(root).place.files(f"audits/{audit}")
        return next((file.modified for file in found if file.key == key), None)

    def beside(self, name: str) -> "AuditFile":
        """Another file of the same folder."""
        return AuditFile(f"{self.location.rpartition('/')[0] or '.'}/{name}")

    def _parts(self) -> tuple[str, str, str]:
        full = self.location if "://" in self.location else Path(self.location).resolve().as_posix()
        parts = full.rsplit("/", 3)
        if len(parts) < 4 or parts[1] != "audits":
            raise StoreError(f"{self.location} lies in no store: an audit's files are STORE/audits/ID/...")
        return parts[0], parts[2], parts[3]
