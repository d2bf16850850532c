"""Reads a finished run, and says which segment is damaged before anything is computed from it.

P prompts of the whole suite.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.commit import tree_checksum
from ft_audit.engine.store.manifest import RunManifest, SegmentEntry, read_manifest
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_folder import read_dense, read_prompts, read_segment_folder, stored_names
from ft_audit.errors import StoreError


class RunReader:
    """One run on the disk; each segment's checksum is verified when the segment is first touched."""

    def __init__(self, folder: Path, *, allow_incomplete: bool = False) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder, RunManifest)
        self._verified: set[int] = set()
        if not self.manifest.complete and not allow_incomplete:
            raise StoreError(
                f"run {self.manifest.run_id} is not finished ({self.num_segments} segments written): "
                f"run `ft-audit precompute` again, it goes on from there"
            )

    @property
    def num_segments(self) -> int:
        return len(self.manifest.segments)

    @property
    def prompt_order(self) -> NDArray[np.int64]:
        """Suite index of every stored prompt, in the order of the segments."""
        return np.concatenate([read_prompts(self._checked(entry)) for entry in self.manifest.segments])

    def segments(
        self, saes: Collection[str] | None = None, dense: Collection[str] | None = None
    ) -> Iterator[SegmentData]:
        """Yield every segment in order, one in memory at a time."""
        for entry in self.manifest.segments:
            yield read_segment_folder(self._checked(entry), saes, dense)

    def segment(
        self, number: int, saes: Collection[str] | None = None, dense: Collection[str] | None = None
    ) -> SegmentData:
        """Return one segment with the named dictionaries' rows and dense arrays only; None means all."""
        return read_segment_folder(self._checked(self.manifest.segments[number]), saes, dense)

    def dense_names(self) -> list[str]:
        """Return the names that `dense` knows."""
        return stored_names(self._checked(self.manifest.segments[0]), "dense")

    def dense(self, name: str) -> NDArray[Any]:
        """Return the dense array [P, ...] over all prompts, in the order of the suite."""
        known = self.dense_names()
        if name not in known:
            raise StoreError(
                f"run {self.manifest.run_id} holds no array {name!r}; it holds {', '.join(known) or 'none'}"
            )
        folders = [self._checked(entry) for entry in self.manifest.segments]
        order = np.argsort(self.prompt_order, kind="stable")
        result: NDArray[Any] = np.concatenate([read_dense(folder, name) for folder in folders])[order]
        return result

    def damaged(self) -> list[str]:
        """Return what is wrong with the run's segments, one line each; nothing when it is whole."""
        problems = []
        for entry in self.manifest.segments:
            try:
                self._checked(entry)
            except StoreError as error:
                problems.append(str(error))
        return problems

    def _checked(self, entry: SegmentEntry) -> Path:
        folder = self.folder / "segments" / f"{entry.name}.zarr"
        if entry.number in self._verified:
            return folder
        what = f"segment {entry.name} of run {self.manifest.run_id}"
        remedy = f"delete the folder {self.folder} and run `ft-audit precompute` again"
        if not folder.is_dir():
            raise StoreError(f"{what} is missing ({folder}): {remedy}")
        if tree_checksum(folder) != entry.checksum:
            raise StoreError(f"{what} is damaged ({folder} does not have its checksum): {remedy}")
        self._verified.add(entry.number)
        return folder
