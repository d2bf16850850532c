"""Writes segments of a run from any process; the run's one writer commits them."""

from dataclasses import dataclass

from ft_audit.engine.store.manifest import SegmentEntry
from ft_audit.engine.store.open_place import open_place
from ft_audit.engine.store.seal import TreeWriter
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_tree import write_segment


def segment_folder(run: str, name: str) -> str:
    """Return where a segment of a run lies."""
    return f"runs/{run}/segments/{name}.zarr"


@dataclass(frozen=True, slots=True)
class SegmentSink:
    """Where a worker puts segments; it can be pickled, and needs no lock."""

    location: str
    run_id: str
    saes: frozenset[str]

    def write(self, number: int, data: SegmentData) -> SegmentEntry:
        """Write and publish one segment, which no reader sees before `RunWriter.commit` is given the entry.

        The same segment may be written twice, and by two processes at once. Raises StoreError when the disk
        or the object store fails.
        """
        assert number >= 0, f"segment {number}"
        assert set(data.features) == self.saes, (
            f"segment {number}: rows of {set(data.features)}, not of {self.saes}"
        )
        place, name = open_place(self.location), f"{number:05d}"
        folder = segment_folder(self.run_id, name)
        staged = place.stage(folder)
        with TreeWriter(place, staged) as tree:
            write_segment(tree, data)
            seal = tree.seal()
        place.publish(staged, folder)
        return SegmentEntry(
            name=name, num_prompts=data.num_prompts, num_tokens=data.num_tokens, checksum=seal
        )
