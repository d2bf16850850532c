"""Every verdict under stores and folders; what cannot be read is named, never left out silently."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ft_audit.agent.audit import REPORT_FILE, VERDICT_FILE, read_verdict
from ft_audit.agent.audit_file import AuditFile
from ft_audit.agent.verdict import Verdict
from ft_audit.engine.store import Store
from ft_audit.errors import StoreError


class Listed(NamedTuple):
    """A verdict, its file, the report beside it if there is one, and when it was written."""

    verdict: Verdict
    file: AuditFile
    report: str | None
    modified: float | None


class Unread(NamedTuple):
    """A file that should hold a verdict, and why it does not."""

    location: str
    why: str


class Collected(NamedTuple):
    """All that was found, the highest risk first; those that state none come last."""

    listed: list[Listed]
    unread: list[Unread]


def collect(roots: Sequence[str]) -> Collected:
    """Read every verdict.json under the roots, each once.

    Raises:
        StoreError: a root is not there, or none of them holds a verdict.
    """
    files = {file.location: file for root in roots for file in _files(root)}
    listed, unread = [], []
    for location, file in files.items():
        try:
            verdict = read_verdict(file)
        except (StoreError, OSError) as error:
            unread.append(Unread(location, str(error)))
            continue
        report = file.beside(REPORT_FILE)
        has_report = report.modified() is not None
        listed.append(Listed(verdict, file, report.location if has_report else None, file.modified()))
    if not files:
        raise StoreError(f"no verdict.json under {', '.join(roots)}: run `ft-audit audit` first")
    return Collected(sorted(listed, key=_order), unread)


def _files(root: str) -> Iterator[AuditFile]:
    if "://" in root:
        store = Store(root)
        for audit in store.audits():
            yield AuditFile(store.audit_location(audit, VERDICT_FILE))
        return
    if not Path(root).is_dir():
        raise StoreError(f"{root}: no such store or folder: name one that `ft-audit audit` wrote to")
    for folder, folders, names in os.walk(Path(root).resolve()):
        # Of a store only its audits are looked through: its runs can hold a million files.
        if "audits" in folders and {"diffs", "runs"} & set(folders):
            folders[:] = ["audits"]
        folders.sort()
        # An audit's folder without a verdict is one that was cut off, and is named as such.
        if VERDICT_FILE in names or Path(folder).parent.name == "audits":
            yield AuditFile(f"{folder}/{VERDICT_FILE}")


def _order(item: Listed) -> tuple[float, str, str]:
    risk = item.verdict.risk
    return (-1.0 if risk is None else risk) * -1, item.verdict.name, item.file.location
