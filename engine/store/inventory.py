"""What a store holds, and whether it is whole."""

from collections.abc import Iterator
from dataclasses import dataclass

from ft_audit.engine.store.labels import LABELS, labelled_dictionaries
from ft_audit.engine.store.manifest import DiffManifest, RunManifest, read_manifest
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.store import Store
from ft_audit.errors import StoreError


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One run, diff, a diff's requests, audit or dictionary with labels.

    `problem` says why it cannot be read, or is empty.
    """

    kind: str
    id: str
    folder: str
    """Its key in the store, such as `runs/<id>`."""
    num_bytes: int
    complete: bool
    num_prompts: int = 0
    num_tokens: int = 0
    num_segments: int = 0
    name: str = ""
    superseded: bool = False
    problem: str = ""


def list_store(store: Store) -> list[StoredItem]:
    """Return everything in the store: runs, diffs, requests, audits and labels, each sorted by id."""
    items = [_run_item(store.place, f"runs/{run}", run) for run in store.runs()]
    items += [_diff_item(store.place, f"diffs/{diff}", diff) for diff in store.diffs()]
    items += [_requests_item(store, diff) for diff in store.requested()]
    others = [("audit", audit, f"audits/{audit}") for audit in store.audits()]
    others += [("labels", sae, f"{LABELS}/{sae}") for sae in labelled_dictionaries(store.place)]
    return items + [
        StoredItem(kind, name, folder, folder_bytes(store.place, folder), True)
        for kind, name, folder in others
    ]


def verify_store(store: Store) -> Iterator[tuple[StoredItem, list[str]]]:
    """Yield every run, diff, requests and labels with what is wrong with them, reading all of their files."""
    for item in list_store(store):
        if item.problem:
            yield item, [item.problem]
        elif item.kind == "run":
            damage = store.open_run(item.id, allow_incomplete=True).damaged()
            yield item, [one.message for one in damage]
        elif item.kind == "diff":
            yield item, store.open_diff(item.id).damaged()
        elif item.kind == "requests":
            yield item, store.requests(item.id).damaged()
        elif item.kind == "labels":
            yield item, store.labels(item.id).damaged()


def folder_bytes(place: Place, folder: str) -> int:
    """Return the size of all files under the folder."""
    return sum(file.size for file in place.files(folder))


def _run_item(place: Place, folder: str, run: str) -> StoredItem:
    num_bytes = folder_bytes(place, folder)
    try:
        manifest = read_manifest(place, folder, RunManifest)
    except StoreError as error:
        return StoredItem("run", run, folder, num_bytes, False, problem=str(error))
    return StoredItem(
        kind="run",
        id=run,
        folder=folder,
        num_bytes=num_bytes,
        complete=manifest.complete,
        num_prompts=manifest.num_prompts,
        num_tokens=manifest.num_tokens,
        num_segments=len(manifest.segments),
        name=", ".join(hook.name for hook in manifest.hooks),
        superseded=manifest.successor is not None,
        problem=_misplaced(place, folder, run, manifest.run_id),
    )


def _diff_item(place: Place, folder: str, diff: str) -> StoredItem:
    num_bytes = folder_bytes(place, folder)
    try:
        manifest = read_manifest(place, folder, DiffManifest)
    except StoreError as error:
        return StoredItem("diff", diff, folder, num_bytes, False, problem=str(error))
    name = str(manifest.summary.get("name", ""))
    problem = _misplaced(place, folder, diff, manifest.diff_id)
    return StoredItem("diff", diff, folder, num_bytes, True, name=name, problem=problem)


def _requests_item(store: Store, diff: str) -> StoredItem:
    requests = store.requests(diff)
    num, num_answered = len(requests.ids()), len(requests.answered())
    return StoredItem(
        kind="requests",
        id=diff,
        folder=requests.folder,
        num_bytes=folder_bytes(store.place, requests.folder),
        complete=num == num_answered,
        name=f"{num_answered} of {num} answered",
    )


def _misplaced(place: Place, folder: str, found: str, named: str) -> str:
    where = f"{place.location}/{folder}"
    return "" if found == named else f"{where} holds {named}: rename the folder back to {named}"
