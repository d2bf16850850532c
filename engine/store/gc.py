"""What may go from a store: leftovers, what cannot be read, and runs that no diff speaks of."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_audit.engine.store.commit import TEMPORARY_SUFFIX, FolderLock, remove
from ft_audit.engine.store.inventory import folder_bytes, list_store
from ft_audit.engine.store.store import Store
from ft_audit.errors import StoreError

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Garbage:
    """One folder that may go, and why."""

    folder: Path
    reason: str
    num_bytes: int


def find_garbage(store: Store, min_age_s: float = DAY_S) -> list[Garbage]:
    """Return what may go; what is being written, or changed less than `min_age_s` ago, is left alone."""
    found = [*_leftovers(store), *_items(store)]
    # Between its runs and its diff a precompute holds no lock, so young folders are nobody's garbage yet.
    newest = time.time() - min_age_s
    return [
        Garbage(folder, reason, folder_bytes(folder))
        for folder, reason in found
        if _last_change(folder) <= newest and not _in_use(folder)
    ]


def remove_garbage(garbage: list[Garbage]) -> int:
    """Delete the folders; return how many bytes that freed."""
    for item in garbage:
        remove(item.folder)
    return sum(item.num_bytes for item in garbage)


def _leftovers(store: Store) -> Iterator[tuple[Path, str]]:
    diffs = store.root / "diffs"
    if diffs.is_dir():
        for path in sorted(diffs.iterdir()):
            if path.name.endswith(TEMPORARY_SUFFIX):
                yield path, "a diff whose writing was interrupted"


def _items(store: Store) -> Iterator[tuple[Path, str]]:
    items = list_store(store)
    spoken_of: set[str] = set()
    for item in items:
        if item.kind == "diff" and not item.problem:
            manifest = store.open_diff(item.id).manifest
            spoken_of |= set(_texts([manifest.identity, manifest.summary]))
    for item in items:
        if item.problem:
            yield item.folder, f"a {item.kind} that cannot be read: {item.problem}"
        elif item.kind == "run" and not item.complete:
            yield item.folder, "a run whose writing was interrupted (precompute would go on from there)"
        elif item.kind == "run" and item.id not in spoken_of:
            yield item.folder, "a run that no diff speaks of (precompute would have to make it again)"


def _texts(value: Any) -> Iterator[str]:
    """Yield every text inside a JSON value: whatever mentions a run's id needs that run."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _in_use(folder: Path) -> bool:
    try:
        FolderLock(folder).release()
    except StoreError:
        return True
    return False
