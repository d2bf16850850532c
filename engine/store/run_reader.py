"""Reads a finished run; a damaged file is an error that names its segment and array.

P prompts of the whole suite.
"""

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import read_attributes
from ft_audit.engine.store.manifest import RunManifest, SegmentEntry, read_manifest
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.sealed_tree import SealedTree
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_sink import segment_folder
from ft_audit.engine.store.segment_tree import (
    DENSE,
    STATS,
    TOKENS,
    read_named,
    read_prompts,
    read_segment,
)
from ft_audit.errors import StoreError


class Damage(NamedTuple):
    """One thing that is wrong with a run; `number` is the segment's."""

    part: Literal["segment", "manifest"]
    number: int | None
    message: str


class RunReader:
    """One run of a store; every file is verified when it is read. Can be pickled."""

    def __init__(self, place: Place, run: str, *, allow_incomplete: bool = False) -> None:
        self.manifest = read_manifest(place, f"runs/{run}", RunManifest)
        self._place = place
        self._trees = [self._tree(entry) for entry in self.manifest.segments]
        if not self.manifest.complete and not allow_incomplete:
            raise StoreError(
                f"run {run} is not finished ({self.num_segments} segments written): "
                f"run `ft-audit precompute` again, it goes on from there"
            )

    @property
    def num_segments(self) -> int:
        return len(self.manifest.segments)

    @property
    def prompt_order(self) -> NDArray[np.int64]:
        """Suite index of every stored prompt, in the order of the segments."""
        return np.concatenate([read_prompts(tree) for tree in self._trees])

    def segments(
        self,
        saes: Collection[str] | None = None,
        dense: Collection[str] | None = None,
        tokens: Collection[str] | None = (),
        stats: Collection[str] | None = (),
    ) -> Iterator[SegmentData]:
        """Yield every segment in order, one in memory at a time."""
        for number in range(self.num_segments):
            yield self.segment(number, saes, dense, tokens, stats)

    def segment(
        self,
        number: int,
        saes: Collection[str] | None = None,
        dense: Collection[str] | None = None,
        tokens: Collection[str] | None = (),
        stats: Collection[str] | None = (),
    ) -> SegmentData:
        """Return one segment with the named dictionaries' rows and arrays only; None means all of a kind."""
        return read_segment(self._trees[number], saes, dense, tokens, stats)

    def dense_names(self) -> list[str]:
        """Return the names that `dense` knows."""
        return self._names(DENSE)

    def token_names(self) -> list[str]:
        """Return the names of the arrays with one row a token."""
        return self._names(TOKENS)

    def stats_names(self) -> list[str]:
        """Return the names of the sums that each segment holds."""
        return self._names(STATS)

    def dense(self, name: str) -> NDArray[Any]:
        """Return the dense array [P, ...] over all prompts, in the order of the suite."""
        known = self.dense_names()
        if name not in known:
            raise StoreError(
                f"run {self.manifest.run_id} holds no array {name!r}; it holds {', '.join(known) or 'none'}"
            )
        order = np.argsort(self.prompt_order, kind="stable")
        result: NDArray[Any] = np.concatenate([read_named(tree, DENSE, name) for tree in self._trees])[order]
        return result

    def damaged(self) -> list[Damage]:
        """Return what is wrong with the run's segments, having read all of them; nothing when it is whole."""
        return [
            Damage("segment", entry.number, message)
            for entry, tree in zip(self.manifest.segments, self._trees, strict=True)
            for message in tree.damaged()
        ]

    def _names(self, kind: str) -> list[str]:
        return read_attributes(self._trees[0])[kind]

    def _tree(self, entry: SegmentEntry) -> SealedTree:
        run = self.manifest.run_id
        return SealedTree(
            place=self._place,
            folder=segment_folder(run, entry.name),
            seal=entry.checksum,
            what=f"segment {entry.name} of run {run}",
            remedy="run `ft-audit precompute` again, it makes this segment anew",
        )
