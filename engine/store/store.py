"""The store: runs, diffs and audits, each found by its id, in a local folder or an object store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ft_audit.engine.store.diff_reader import DiffReader
from ft_audit.engine.store.diff_writer import DiffWriter
from ft_audit.engine.store.labels import DictionaryLabels, put_vocabulary, read_vocabulary
from ft_audit.engine.store.ledger import Ledger
from ft_audit.engine.store.manifest import (
    MANIFEST_NAME,
    DamagedManifestError,
    DiffManifest,
    HookEntry,
    RunManifest,
    read_manifest,
)
from ft_audit.engine.store.open_place import open_place
from ft_audit.engine.store.place import TEMPORARY_SUFFIX
from ft_audit.engine.store.requests import REQUESTS, Requests
from ft_audit.engine.store.run_reader import RunReader
from ft_audit.engine.store.run_writer import RunWriter
from ft_audit.errors import StoreError


class Store:
    """A place with evidence; opening it creates nothing, and reading it never writes. Can be pickled."""

    def __init__(self, root: str | Path) -> None:
        """Name a folder of this machine or `s3://bucket/prefix`.

        Credentials and the endpoint of an object store come from the usual AWS_* variables. Raises
        MissingExtraError when what speaks to it is not installed.
        """
        self.place = open_place(root)

    @property
    def location(self) -> str:
        """The absolute path, or `s3://bucket/prefix`."""
        return self.place.location

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
        """Return whether the run is there and finished; a damaged manifest, which a writer mends, is not."""
        manifest = self._run_manifest(run)
        return manifest is not None and manifest.complete

    def has_diff(self, diff: str) -> bool:
        """Return whether the diff is there, its manifest undamaged; a diff is never there by half."""
        try:
            return read_manifest(self.place, f"diffs/{diff}", DiffManifest).diff_id == diff
        except DamagedManifestError:
            return False

    def successor(self, run: str) -> dict[str, Any] | None:
        """Return what the run was given up for; None when it was not, or when there is no such run."""
        manifest = self._run_manifest(run)
        return None if manifest is None else manifest.successor

    def open_run(self, run: str, *, allow_incomplete: bool = False) -> RunReader:
        """Return a reader of a finished run."""
        self._expect("runs", "run", run)
        return RunReader(self.place, run, allow_incomplete=allow_incomplete)

    def open_diff(self, diff: str) -> DiffReader:
        """Return a reader of a diff."""
        self._expect("diffs", "diff", diff)
        return DiffReader(self.place, diff)

    def run_writer(self, identity: Mapping[str, Any], hooks: Sequence[HookEntry]) -> RunWriter:
        """Start or resume the run that this identity determines."""
        return RunWriter(self.place, identity, hooks)

    def diff_writer(self, identity: Mapping[str, Any]) -> DiffWriter:
        """Start the diff that this identity determines."""
        return DiffWriter(self.place, identity)

    def labels(self, sae_sha256: str) -> DictionaryLabels:
        """Return what is known of a dictionary's features, and where more of it is added."""
        return DictionaryLabels(self.place, sae_sha256)

    def vocabulary(self, base_sha256: str) -> list[str] | None:
        """Return what each token id of a base stands for; None when `labels build` has not stored it."""
        return read_vocabulary(self.place, base_sha256)

    def put_vocabulary(self, base_sha256: str, tokens: Sequence[str]) -> None:
        """Store what each token id of a base stands for."""
        put_vocabulary(self.place, base_sha256, tokens)

    def put_ledger(self, diff: str, ledger: Ledger) -> None:
        """Keep what a diff cost, apart from its bytes."""
        self.place.replace(_ledger_file(diff), ledger.model_dump_json().encode())

    def ledger(self, diff: str) -> Ledger | None:
        """Return what a diff cost; None where it was not counted, or cannot be read."""
        content = self.place.read(_ledger_file(diff))
        try:
            return None if content is None else Ledger.model_validate_json(content)
        except ValidationError:
            return None

    def requests(self, diff: str) -> Requests:
        """Return what was asked of a diff beyond its evidence, and where more of it is queued."""
        return Requests(self.place, diff)

    def requested(self) -> list[str]:
        """Return the ids of the diffs of which more was asked, sorted."""
        return self._ids(REQUESTS)

    def put_audit_file(self, audit: str, name: str, content: bytes) -> str:
        """Write one file of an audit whole and return where it is."""
        self.place.replace(_audit_file(audit, name), content)
        return self.audit_location(audit, name)

    def read_audit_file(self, audit: str, name: str) -> bytes:
        """Return one file of an audit; StoreError when there is none."""
        content = self.place.read(_audit_file(audit, name))
        if content is None:
            raise StoreError(f"{self.audit_location(audit, name)}: no such file: run `ft-audit audit` first")
        return content

    def audit_location(self, audit: str, name: str) -> str:
        """Return where a file of an audit is or would be."""
        return f"{self.location}/{_audit_file(audit, name)}"

    def _run_manifest(self, run: str) -> RunManifest | None:
        try:
            return read_manifest(self.place, f"runs/{run}", RunManifest)
        except DamagedManifestError:
            return None

    def _ids(self, room: str) -> list[str]:
        return [name for name in self.place.folders(room) if not name.endswith(TEMPORARY_SUFFIX)]

    def _expect(self, room: str, kind: str, name: str) -> None:
        # The usual case costs one look; a listing is for the message and for what has lost its manifest.
        if self.place.read(f"{room}/{name}/{MANIFEST_NAME}") is None and name not in self._ids(room):
            known = ", ".join(self._ids(room)) or "none"
            raise StoreError(
                f"store {self.location} has no {kind} {name!r} (it has: {known}): "
                f"run `ft-audit precompute` first"
            )


def _ledger_file(diff: str) -> str:
    return f"ledgers/{diff}.json"


def _audit_file(audit: str, name: str) -> str:
    return f"audits/{audit}/{name}"
