"""What a store holds, and whether it is whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ft_audit.engine.store.manifest import DiffManifest, RunManifest, read_manifest
from ft_audit.engine.store.run_reader import RunReader
from ft_audit.engine.store.store import Store
from ft_audit.errors import StoreError


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One run, diff or audit; `problem` says why it cannot be read, and is empty when it can."""

    kind: str
    id: str
    folder: Path
    num_bytes: int
    complete: bool
    num_prompts: int = 0
    num_tokens: int = 0
    num_segments: int = 0
    name: str = ""
    problem: str = ""


def list_store(store: Store) -> list[StoredItem]:
    """Return everything in the store: runs, then diffs, then audits, each sorted by id."""
    items = [_run_item(store.root / "runs" / run, run) for run in store.runs()]
    items += [_diff_item(store.root / "diffs" / diff, diff) for diff in store.diffs()]
    audits = [(audit, store.root / "audits" / audit) for audit in store.audits()]
    return items + [
        StoredItem("audit", audit, folder, folder_bytes(folder), True) for audit, folder in audits
    ]


def verify_store(store: Store) -> Iterator[tuple[StoredItem, list[str]]]:
    """Yield every run and diff with what is wrong with it, reading all of its files."""
    for item in list_store(store):
        if item.problem:
            yield item, [item.problem]
        elif item.kind == "run":
            yield item, RunReader(item.folder, allow_incomplete=True).damaged()
        elif item.kind == "diff":
            yield item, store.open_diff(item.id).damaged()


def folder_bytes(folder: Path) -> int:
    """Return the size of all files under the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _run_item(folder: Path, run: str) -> StoredItem:
    try:
        manifest = read_manifest(folder, RunManifest)
    except StoreError as error:
        return StoredItem("run", run, folder, folder_bytes(folder), False, problem=str(error))
    return StoredItem(
        kind="run",
        id=run,
        folder=folder,
        num_bytes=folder_bytes(folder),
        complete=manifest.complete,
        num_prompts=manifest.num_prompts,
        num_tokens=manifest.num_tokens,
        num_segments=len(manifest.segments),
        name=", ".join(hook.name for hook in manifest.hooks),
        problem=_misplaced(folder, manifest.run_id),
    )


def _diff_item(folder: Path, diff: str) -> StoredItem:
    try:
        manifest = read_manifest(folder, DiffManifest)
    except StoreError as error:
        return StoredItem("diff", diff, folder, folder_bytes(folder), False, problem=str(error))
    name = str(manifest.summary.get("name", ""))
    problem = _misplaced(folder, manifest.diff_id)
    return StoredItem("diff", diff, folder, folder_bytes(folder), True, name=name, problem=problem)


def _misplaced(folder: Path, named: str) -> str:
    return "" if folder.name == named else f"{folder} holds {named}: rename the folder back to {named}"
