"""Writes a diff under a temporary name and moves it at the end, so that it exists whole or not at all."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from arro3.core.types import ArrowStreamExportable
from numpy.typing import DTypeLike, NDArray

from ft_audit.engine.store.array_sink import ArraySink
from ft_audit.engine.store.arrays import safe_path, write_group
from ft_audit.engine.store.canonical import content_id
from ft_audit.engine.store.diff_parts import group_folder, index_folder, table_file
from ft_audit.engine.store.layout import CHUNK_ELEMENTS
from ft_audit.engine.store.manifest import (
    MANIFEST_NAME,
    DiffManifest,
    GroupEntry,
    TableEntry,
    manifest_bytes,
)
from ft_audit.engine.store.place import TEMPORARY_SUFFIX, Place
from ft_audit.engine.store.seal import TreeWriter, checksum
from ft_audit.engine.store.table import table_bytes


class DiffWriter:
    """One diff being written; a reader sees nothing of it before `finish`."""

    def __init__(self, place: Place, identity: Mapping[str, Any]) -> None:
        """Begin the diff of this identity; StoreError when another process is writing it."""
        self._place, self._identity = place, dict(identity)
        self._folder = f"diffs/{content_id(identity)}"
        self._temporary = self._folder + TEMPORARY_SUFFIX
        self._lock = place.lock(self._temporary)
        self._groups: dict[str, GroupEntry] = {}
        self._tables: dict[str, TableEntry] = {}
        self._sinks: dict[str, ArraySink] = {}
        place.clear(self._temporary)

    @property
    def diff_id(self) -> str:
        return content_id(self._identity)

    def put_stats(self, group: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write named numeric arrays as one group, such as `features/<sae>/<suite>`."""
        assert group not in self._groups, f"stats group {group!r} is written twice"
        assert arrays, f"stats group {group!r} is empty"
        with TreeWriter(self._place, group_folder(self._temporary, group)) as tree:
            write_group(tree, {}, {safe_path(name): np.asarray(arrays[name]) for name in sorted(arrays)})
            self._groups[group] = GroupEntry(arrays=sorted(arrays), checksum=tree.seal())

    def put_table(self, name: str, table: ArrowStreamExportable) -> None:
        """Write one Arrow table as `tables/<name>.parquet`."""
        assert name not in self._tables, f"table {name!r} is written twice"
        assert "/" not in name, f"table name {name!r} must be a plain file name"
        content, num_rows = table_bytes(table)
        self._place.put(table_file(self._temporary, name), content)
        self._tables[name] = TableEntry(num_rows=num_rows, checksum=checksum(content))

    def array_sink(self, path: str, dtype: DTypeLike, chunk_elements: int = CHUNK_ELEMENTS) -> ArraySink:
        """Begin a 1-D array of `features.zarr`, to be filled piece by piece and closed before `finish`."""
        assert path not in self._sinks, f"index array {path!r} is written twice"
        sink = ArraySink(self._place, index_folder(self._temporary, path), dtype, chunk_elements)
        self._sinks[path] = sink
        return sink

    def finish(self, summary: Mapping[str, Any]) -> DiffManifest:
        """Write the manifest and publish the diff, in the place of an older one of the same id."""
        index = {}
        for path, sink in self._sinks.items():
            assert sink.entry is not None, f"index array {path!r} is not closed"
            index[path] = sink.entry
        manifest = DiffManifest(
            diff_id=self.diff_id,
            identity=self._identity,
            summary=dict(summary),
            groups=self._groups,
            tables=self._tables,
            index=index,
        )
        self._place.put(f"{self._temporary}/{MANIFEST_NAME}", manifest_bytes(manifest))
        self._lock.check()
        self._place.move(self._temporary, self._folder, last=MANIFEST_NAME)
        self._lock.release()
        return manifest

    def close(self) -> None:
        """Give the diff up: what was written so far is deleted, unless it was finished."""
        for sink in self._sinks.values():
            sink.abandon()
        if self._lock.held:
            self._place.delete(self._temporary)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
