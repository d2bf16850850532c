"""Reads a diff part by part: statistics array by array, tables whole, every file verified when it is read."""

from collections.abc import Collection, Iterator
from typing import Any

from numpy.typing import NDArray

from ft_audit.engine.store.arrays import read_array, read_arrays, safe_path
from ft_audit.engine.store.diff_parts import group_folder, index_folder, table_file
from ft_audit.engine.store.manifest import MANIFEST_NAME, DiffManifest, read_manifest
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.range_array import RangeArray
from ft_audit.engine.store.seal import checksum
from ft_audit.engine.store.sealed_tree import SealedTree
from ft_audit.engine.store.table import Table
from ft_audit.errors import StoreError


class DiffReader:
    """One finished diff of a store. Can be pickled."""

    def __init__(self, place: Place, diff: str) -> None:
        self._place, self._folder = place, f"diffs/{diff}"
        self.manifest = read_manifest(place, self._folder, DiffManifest)
        self._remedy = (
            f"delete the folder {place.location}/{self._folder} and run `ft-audit precompute` again"
        )

    @property
    def written(self) -> float:
        """When the diff was finished, in seconds since 1970."""
        return self._place.modified(f"{self._folder}/{MANIFEST_NAME}")

    def groups(self) -> list[str]:
        """Return the names of the stats groups, sorted."""
        return sorted(self.manifest.groups)

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return sorted(self.manifest.tables)

    def index_paths(self) -> list[str]:
        """Return the paths of the arrays of the feature-major copy, sorted."""
        return sorted(self.manifest.index)

    def array_names(self, group: str) -> list[str]:
        """Return the names of the arrays of one stats group."""
        self._known("stats group", group, self.groups())
        return list(self.manifest.groups[group].arrays)

    def array(self, group: str, name: str) -> NDArray[Any]:
        """Return one array of one stats group, reading only that."""
        self._known(f"array in the stats group {group!r}", name, self.array_names(group))
        return read_array(self._group(group), safe_path(name))

    def stats(self, group: str, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
        """Return the arrays of one stats group: all of them, or those of these names that there are."""
        names = [name for name in self.array_names(group) if only is None or name in only]
        found = read_arrays(self._group(group), [safe_path(name) for name in names])
        return dict(zip(names, found.values(), strict=True))

    def index_array(self, path: str) -> RangeArray:
        """Return one array of the feature-major copy, of which ranges can be read."""
        self._known("index array", path, self.index_paths())
        return RangeArray(self._index(path))

    def table(self, name: str) -> Table:
        """Return one table."""
        self._known("table", name, self.tables())
        key = table_file(self._folder, name)
        what, where = f"table {name!r} of diff {self.manifest.diff_id}", f"{self._place.location}/{key}"
        content = self._place.read(key)
        if content is None:
            raise StoreError(f"{what} is missing ({where}): {self._remedy}")
        if checksum(content) != self.manifest.tables[name].checksum:
            raise StoreError(f"{what} is damaged ({where} does not have its checksum): {self._remedy}")
        return Table(content)

    def damaged(self) -> list[str]:
        """Return what is wrong with the diff's parts, having read all of them; nothing when it is whole."""
        problems = [line for tree in self._trees() for line in tree.damaged()]
        for name in self.tables():
            try:
                self.table(name)
            except StoreError as error:
                problems.append(str(error))
        return problems

    def _trees(self) -> Iterator[SealedTree]:
        yield from (self._group(group) for group in self.groups())
        yield from (self._index(path) for path in self.index_paths())

    def _group(self, group: str) -> SealedTree:
        entry = self.manifest.groups[group]
        return self._tree(group_folder(self._folder, group), entry.checksum, f"stats group {group!r}")

    def _index(self, path: str) -> SealedTree:
        entry = self.manifest.index[path]
        return self._tree(index_folder(self._folder, path), entry.checksum, f"index array {path!r}")

    def _tree(self, folder: str, seal: str, what: str) -> SealedTree:
        return SealedTree(self._place, folder, seal, f"{what} of diff {self.manifest.diff_id}", self._remedy)

    def _known(self, what: str, name: str, known: list[str]) -> None:
        if name not in known:
            there = ", ".join(known) or "none"
            raise StoreError(f"diff {self.manifest.diff_id} holds no {what} {name!r}; it holds {there}")
