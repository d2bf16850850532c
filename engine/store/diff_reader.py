"""Reads a diff part by part: statistics array by array, tables whole, each verified when first touched."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import open_group, read_array, safe_path
from ft_audit.engine.store.commit import file_checksum, tree_checksum
from ft_audit.engine.store.manifest import DiffManifest, read_manifest
from ft_audit.engine.store.table import Table
from ft_audit.errors import StoreError


class DiffReader:
    """One finished diff on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder, DiffManifest)
        self._verified: set[str] = set()

    def groups(self) -> list[str]:
        """Return the names of the stats groups, sorted."""
        return sorted(self.manifest.groups)

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return sorted(self.manifest.tables)

    def array_names(self, group: str) -> list[str]:
        """Return the names of the arrays of one stats group."""
        self._known("stats group", group, self.groups())
        return list(self.manifest.groups[group].arrays)

    def array(self, group: str, name: str) -> NDArray[Any]:
        """Return one array of one stats group, reading only that."""
        self._known(f"array in the stats group {group!r}", name, self.array_names(group))
        folder = self.folder / "stats.zarr" / safe_path(group) / "arrays"
        self._verify(f"stats group {group!r}", folder, self.manifest.groups[group].checksum)
        result: NDArray[Any] = np.asarray(read_array(open_group(folder), safe_path(name)))
        return result

    def stats(self, group: str) -> dict[str, NDArray[Any]]:
        """Return all arrays of one stats group."""
        return {name: self.array(group, name) for name in self.array_names(group)}

    def table(self, name: str) -> Table:
        """Return one table."""
        self._known("table", name, self.tables())
        path = self.folder / "tables" / f"{safe_path(name)}.parquet"
        self._verify(f"table {name!r}", path, self.manifest.tables[name].checksum)
        return Table(path)

    def damaged(self) -> list[str]:
        """Return what is wrong with the diff's parts, one line each; nothing when it is whole."""
        problems = []
        for group, entry in sorted(self.manifest.groups.items()):
            folder = self.folder / "stats.zarr" / safe_path(group) / "arrays"
            problems += self._problem(f"stats group {group!r}", folder, entry.checksum)
        for name, table in sorted(self.manifest.tables.items()):
            path = self.folder / "tables" / f"{safe_path(name)}.parquet"
            problems += self._problem(f"table {name!r}", path, table.checksum)
        return problems

    def _problem(self, what: str, path: Path, checksum: str) -> list[str]:
        try:
            self._verify(what, path, checksum)
        except StoreError as error:
            return [str(error)]
        return []

    def _verify(self, what: str, path: Path, checksum: str) -> None:
        if what in self._verified:
            return
        remedy = f"delete the folder {self.folder} and run `ft-audit precompute` again"
        if not path.exists():
            raise StoreError(f"{what} of diff {self.manifest.diff_id} is missing ({path}): {remedy}")
        if (tree_checksum(path) if path.is_dir() else file_checksum(path)) != checksum:
            raise StoreError(
                f"{what} of diff {self.manifest.diff_id} is damaged "
                f"({path} does not have its checksum): {remedy}"
            )
        self._verified.add(what)

    def _known(self, what: str, name: str, known: list[str]) -> None:
        if name not in known:
            there = ", ".join(known) or "none"
            raise StoreError(f"diff {self.manifest.diff_id} holds no {what} {name!r}; it holds {there}")
