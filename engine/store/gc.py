"""What may go from a store: leftovers, what cannot be read, and what no diff speaks of or needs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ft_audit.engine.store.inventory import list_store
from ft_audit.engine.store.place import TEMPORARY_SUFFIX, Place
from ft_audit.engine.store.store import Store
from ft_audit.errors import StoreError

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Garbage:
    """One folder of the store that may go, and why."""

    folder: str
    reason: str
    num_bytes: int


def find_garbage(store: Store, min_age_s: float = DAY_S) -> list[Garbage]:
    """Return what may go; what is being written, or changed less than `min_age_s` ago, is left alone."""
    found = []
    # Between its runs and its diff a precompute holds no lock, so young folders are nobody's garbage yet.
    newest = time.time() - min_age_s
    for folder, reason in (*_leftovers(store.place), *_items(store)):
        files = store.place.files(folder)
        changed = max((file.modified for file in files), default=0.0)
        if changed <= newest and not _in_use(store.place, folder):
            found.append(Garbage(folder, reason, sum(file.size for file in files)))
    return found


def remove_garbage(store: Store, garbage: list[Garbage]) -> int:
    """Delete the folders but those that a writer took up meanwhile; return how many bytes that freed."""
    freed = 0
    for item in garbage:
        try:
            lock = store.place.lock(item.folder)
        except StoreError:
            continue
        store.place.delete(item.folder)
        lock.release()
        freed += item.num_bytes
    return freed


def _leftovers(place: Place) -> Iterator[tuple[str, str]]:
    for name in place.folders("diffs"):
        if name.endswith(TEMPORARY_SUFFIX):
            yield f"diffs/{name}", "a diff whose writing was interrupted"


def _items(store: Store) -> Iterator[tuple[str, str]]:
    items = list_store(store)
    spoken_of: set[str] = set()
    for item in items:
        if item.kind == "diff" and not item.problem:
            manifest = store.open_diff(item.id).manifest
            spoken_of |= set(_texts([manifest.identity, manifest.summary]))
    diffs = {item.id for item in items if item.kind == "diff"}
    for item in items:
        if item.kind == "requests" and item.id not in diffs:
            yield item.folder, "requests of a diff that is not there"
        elif item.problem:
            yield item.folder, f"a {item.kind} that cannot be read: {item.problem}"
        # A run that was given up is only its manifest, which says how to go on.
        elif item.kind != "run" or item.superseded:
            continue
        elif not item.complete:
            yield item.folder, "a run whose writing was interrupted (precompute would go on from there)"
        elif item.id not in spoken_of:
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


def _in_use(place: Place, folder: str) -> bool:
    try:
        place.lock(folder).release()
    except StoreError:
        return True
    return False
