"""Writes a run segment by segment, so that killing it at any moment loses at most the segments in hand."""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ft_audit.engine.store.canonical import canonical_json, run_id
from ft_audit.engine.store.manifest import (
    MANIFEST_NAME,
    DamagedManifestError,
    HookEntry,
    RunManifest,
    SegmentEntry,
    manifest_bytes,
    read_manifest,
)
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.recover import recover_segments
from ft_audit.engine.store.seal import CHECKSUMS_NAME, checksum
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_sink import SegmentSink, segment_folder
from ft_audit.errors import StoreError


class RunWriter:
    """One run being written; holds the run's lock until it is finished or closed."""

    def __init__(self, place: Place, identity: Mapping[str, Any], hooks: Sequence[HookEntry]) -> None:
        """Open or resume the run of this identity; what an interrupted writer left half-done is deleted.

        A damaged manifest is made again from the segments that are whole. Raises StoreError when another
        process writes the run, or when the store holds another run under this id.
        """
        self._place, self._folder = place, f"runs/{run_id(identity)}"
        self._lock = place.lock(self._folder)
        try:
            self._manifest = self._open_manifest(identity, list(hooks))
            self._delete_leftovers()
        except BaseException:
            self._lock.release()
            raise

    def _open_manifest(self, identity: Mapping[str, Any], hooks: list[HookEntry]) -> RunManifest:
        manifest = RunManifest(
            run_id=run_id(identity),
            identity=dict(identity),
            num_prompts=0,
            num_tokens=0,
            hooks=hooks,
            segments=[],
            complete=False,
        )
        try:
            stored = read_manifest(self._place, self._folder, RunManifest)
        except DamagedManifestError:
            self._manifest = manifest
            self._save(recover_segments(self._place, manifest.run_id), complete=False)
            return self._manifest
        if canonical_json(stored.identity) != canonical_json(manifest.identity) or stored.hooks != hooks:
            raise StoreError(
                f"{self._place.location}/{self._folder}/{MANIFEST_NAME} describes another run than the one "
                f"being written: delete the folder and run `ft-audit precompute` again"
            )
        return stored

    def _delete_leftovers(self) -> None:
        # A segment published just before the writer died is in no manifest: write it again.
        known = {f"{entry.name}.zarr" for entry in self._manifest.segments}
        for name in self._place.folders(f"{self._folder}/segments"):
            if name not in known:
                self._place.delete(f"{self._folder}/segments/{name}")

    @property
    def run_id(self) -> str:
        return self._manifest.run_id

    @property
    def committed(self) -> set[int]:
        """The numbers of the segments that are in the store and need no second writing."""
        return {entry.number for entry in self._manifest.segments}

    @property
    def complete(self) -> bool:
        return self._manifest.complete

    def sink(self) -> SegmentSink:
        """Return what writes this run's segments from another process."""
        return SegmentSink(self._place.location, self.run_id, frozenset(self._manifest.sae_names()))

    def write_segment(self, number: int, data: SegmentData) -> None:
        """Write and commit one segment."""
        assert number not in self.committed, f"segment {number} is already committed"
        assert not self.complete, f"run {self.run_id} is finished"
        self.commit(self.sink().write(number, data))

    def commit(self, entry: SegmentEntry) -> None:
        """Add a segment that a sink wrote to the manifest; from then on it is never computed again."""
        assert not self.complete, f"run {self.run_id} is finished"
        folder = segment_folder(self.run_id, entry.name)
        seal = self._place.read(f"{folder}/{CHECKSUMS_NAME}")
        if seal is None or checksum(seal) != entry.checksum:
            raise StoreError(
                f"segment {entry.name} of run {self.run_id} was written, but is not in "
                f"{self._place.location}/{folder}: name a store that all workers share, a common folder or s3://"
            )
        others = [segment for segment in self._manifest.segments if segment.name != entry.name]
        self._save([*others, entry], complete=False)

    def drop(self, numbers: Collection[int]) -> None:
        """Take segments back, such as damaged ones, so that they are written again; the run is unfinished."""
        dropped = [entry for entry in self._manifest.segments if entry.number in numbers]
        assert len(dropped) == len(set(numbers)), f"{set(numbers)} are not all of {self.committed}"
        kept = [entry for entry in self._manifest.segments if entry.number not in numbers]
        # The manifest first: a segment that it names is whole.
        self._save(kept, complete=False)
        for entry in dropped:
            self._place.delete(segment_folder(self.run_id, entry.name))

    def supersede(self, successor: Mapping[str, Any]) -> None:
        """Give the run up for another way to compute it, such as smaller batches, and delete its segments.

        `Store.successor` answers with `successor` from then on.
        """
        self._manifest = self._manifest.model_copy(update={"successor": dict(successor)})
        self.drop(self.committed)

    def finish(self) -> RunManifest:
        """Mark the run complete and release it; every number from 0 to the last must be committed."""
        segments = self._manifest.segments
        assert segments, f"run {self.run_id} has no segment"
        assert [entry.number for entry in segments] == list(range(len(segments))), "a segment is missing"
        assert self._manifest.successor is None, f"run {self.run_id} was given up"
        if not self.complete:
            # What a worker that died was writing.
            self._delete_leftovers()
            self._save(segments, complete=True)
        self.close()
        return self._manifest

    def _save(self, segments: list[SegmentEntry], *, complete: bool) -> None:
        self._lock.check()
        update = {
            "segments": sorted(segments, key=lambda segment: segment.number),
            "num_prompts": sum(entry.num_prompts for entry in segments),
            "num_tokens": sum(entry.num_tokens for entry in segments),
            "complete": complete,
        }
        manifest = self._manifest.model_copy(update=update)
        self._place.replace(f"{self._folder}/{MANIFEST_NAME}", manifest_bytes(manifest))
        # Only what the store holds: after a failure the writer goes on from there.
        self._manifest = manifest

    def close(self) -> None:
        """Release the run; what is committed stays, and a later writer resumes there."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
