"""The store: one folder with runs, diffs and audits, each found by its id."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ft_audit.engine.store.canonical import content_id, run_id
from ft_audit.engine.store.commit import TEMPORARY_SUFFIX
from ft_audit.engine.store.diff_reader import DiffReader
from ft_audit.engine.store.diff_writer import DiffWriter
from ft_audit.engine.store.manifest import MANIFEST_NAME, HookEntry, RunManifest, read_manifest
from ft_audit.engine.store.run_reader import RunReader
from ft_audit.engine.store.run_writer import RunWriter
from ft_audit.errors import StoreError


class Store:
    """A folder of evidence; opening it creates nothing, and reading it never writes."""

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise StoreError(
                f"store {str(root)!r}: object stores are not supported yet: give a folder of this machine"
            )
        self.root = Path(root).expanduser()

    def runs(self) -> list[str]:
        """Return the ids of all runs, unfinished ones included, sorted."""
        return self._ids("runs")

    def diffs(self) -> list[str]:
        """Return the ids of all diffs, sorted."""
        return self._ids("diffs")

    def audits(self) -> list[str]:
        """Return the ids of all audits, sorted."""
        return self._ids("audits")

    def has_run(self, run: str) -> bool:
        """Return whether the run is there and finished."""
        folder = self.root / "runs" / run
        return (folder / MANIFEST_NAME).exists() and read_manifest(folder, RunManifest).complete

    def has_diff(self, diff: str) -> bool:
        """Return whether the diff is there; a diff is never there by half."""
        return (self.root / "diffs" / diff / MANIFEST_NAME).exists()

    def open_run(self, run: str) -> RunReader:
        """Return a reader of a finished run."""
        return RunReader(self._folder("runs", "run", run))

    def open_diff(self, diff: str) -> DiffReader:
        """Return a reader of a diff."""
        return DiffReader(self._folder("diffs", "diff", diff))

    def run_writer(self, identity: Mapping[str, Any], hooks: Sequence[HookEntry]) -> RunWriter:
        """Start or resume the run that this identity determines."""
        return RunWriter(self.root / "runs" / run_id(identity), identity, hooks)

    def diff_writer(self, identity: Mapping[str, Any]) -> DiffWriter:
        """Start the diff that this identity determines."""
        return DiffWriter(self.root / "diffs" / content_id(identity), identity)

    def audit_dir(self, audit: str) -> Path:
        """Return the folder of an audit, made if it is not there."""
        folder = self.root / "audits" / audit
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _ids(self, room: str) -> list[str]:
        folder = self.root / room
        if not folder.is_dir():
            return []
        names = (path.name for path in folder.iterdir() if path.is_dir())
        return sorted(name for name in names if not name.endswith(TEMPORARY_SUFFIX))

    def _folder(self, room: str, kind: str, name: str) -> Path:
        folder = self.root / room / name
        if not folder.is_dir():
            known = ", ".join(self._ids(room)) or "none"
            raise StoreError(
                f"store {self.root} has no {kind} {name!r} (it has: {known}): run `ft-audit precompute` first"
            )
        return folder
