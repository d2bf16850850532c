"""Writes a diff under a temporary name and renames it at the end, so that it exists whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from arro3.core.types import ArrowStreamExportable
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import create_group, safe_path, write_array
from ft_audit.engine.store.canonical import content_id
from ft_audit.engine.store.commit import (
    TEMPORARY_SUFFIX,
    FolderLock,
    file_checksum,
    fsync_path,
    fsync_tree,
    publish_folder,
    remove,
    tree_checksum,
)
from ft_audit.engine.store.manifest import (
    MANIFEST_NAME,
    DiffManifest,
    GroupEntry,
    TableEntry,
    manifest_bytes,
)
from ft_audit.engine.store.table import write_table


class DiffWriter:
    """One diff being written; a reader sees nothing of it before `finish`."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._identity = dict(identity)
        self._temporary = folder.with_name(folder.name + TEMPORARY_SUFFIX)
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self._temporary)
        for leftover in sorted(self._temporary.iterdir()):
            remove(leftover)
        (self._temporary / "tables").mkdir()
        self._stats = create_group(self._temporary / "stats.zarr", {})
        self._arrays: dict[str, list[str]] = {}
        self._tables: dict[str, TableEntry] = {}

    @property
    def diff_id(self) -> str:
        return content_id(self._identity)

    def put_stats(self, group: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write named numeric arrays as one group, such as `features/<sae>/<suite>`."""
        assert group not in self._arrays, f"stats group {group!r} is written twice"
        assert arrays, f"stats group {group!r} is empty"
        for name in sorted(arrays):
            write_array(self._stats, f"{safe_path(group)}/arrays/{safe_path(name)}", np.asarray(arrays[name]))
        self._arrays[group] = sorted(arrays)

    def put_table(self, name: str, table: ArrowStreamExportable) -> None:
        """Write one Arrow table as `tables/<name>.parquet`."""
        assert name not in self._tables, f"table {name!r} is written twice"
        assert "/" not in name, f"table name {name!r} must be a plain file name"
        path = self._temporary / "tables" / f"{safe_path(name)}.parquet"
        num_rows = write_table(table, path)
        self._tables[name] = TableEntry(num_rows=num_rows, checksum=file_checksum(path))

    def finish(self, summary: Mapping[str, Any]) -> DiffManifest:
        """Write the manifest and publish the diff, in the place of an older one of the same id."""
        stats = self._temporary / "stats.zarr"
        groups = {
            name: GroupEntry(arrays=arrays, checksum=tree_checksum(stats / safe_path(name) / "arrays"))
            for name, arrays in self._arrays.items()
        }
        manifest = DiffManifest(
            diff_id=self.diff_id,
            identity=self._identity,
            summary=dict(summary),
            groups=groups,
            tables=self._tables,
        )
        (self._temporary / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
        if self._folder.exists():
            # A folder cannot replace a folder in one step: for a moment there is no diff, never half of one.
            fsync_tree(self._temporary)
            old = self._folder.with_name(self._folder.name + ".old" + TEMPORARY_SUFFIX)
            if old.exists():
                remove(old)
            self._folder.rename(old)
            publish_folder(self._temporary, self._folder)
            remove(old)
            fsync_path(self._folder.parent)
        else:
            publish_folder(self._temporary, self._folder)
        self._lock.release()
        return manifest

    def close(self) -> None:
        """Give the diff up: what was written so far is deleted, unless it was finished."""
        if self._lock.held:
            remove(self._temporary)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
