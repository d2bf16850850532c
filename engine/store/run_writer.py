"""Writes a run segment by segment, so that killing it at any moment loses at most the segment in hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ft_audit.engine.store.canonical import canonical_json, run_id
from ft_audit.engine.store.commit import (
    TEMPORARY_SUFFIX,
    FolderLock,
    publish_folder,
    remove,
    remove_temporaries,
    replace_file,
    tree_checksum,
)
from ft_audit.engine.store.manifest import (
    MANIFEST_NAME,
    HookEntry,
    RunManifest,
    SegmentEntry,
    manifest_bytes,
    read_manifest,
)
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_folder import write_segment_folder
from ft_audit.errors import StoreError


class RunWriter:
    """One run being written; holds the run's lock until it is finished or closed."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], hooks: Sequence[HookEntry]) -> None:
        """Open or resume the run in the folder; what an interrupted writer left half-done is deleted."""
        self._segments_dir = folder / "segments"
        self._segments_dir.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = FolderLock(folder)
        self._manifest = self._open_manifest(identity, list(hooks))
        remove_temporaries(folder)
        remove_temporaries(self._segments_dir)
        # A segment renamed just before the writer died has no checksum to vouch for it: write it again.
        known = {_folder_name(entry.name) for entry in self._manifest.segments}
        for path in sorted(self._segments_dir.iterdir()):
            if path.name not in known:
                remove(path)

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
        if not (self._folder / MANIFEST_NAME).exists():
            replace_file(self._folder / MANIFEST_NAME, manifest_bytes(manifest))
            return manifest
        stored = read_manifest(self._folder, RunManifest)
        if canonical_json(stored.identity) != canonical_json(manifest.identity) or stored.hooks != hooks:
            raise StoreError(
                f"{self._folder / MANIFEST_NAME} describes another run than the one being written: "
                f"delete the folder and run `ft-audit precompute` again"
            )
        return stored

    @property
    def run_id(self) -> str:
        return self._manifest.run_id

    @property
    def committed(self) -> set[int]:
        """The numbers of the segments that are on the disk and need no second writing."""
        return {entry.number for entry in self._manifest.segments}

    @property
    def complete(self) -> bool:
        return self._manifest.complete

    def write_segment(self, number: int, data: SegmentData) -> None:
        """Commit one segment: temporary name, fsync, rename, then the manifest."""
        assert number >= 0 and number not in self.committed, f"segment {number} is already committed"
        assert not self._manifest.complete, f"run {self.run_id} is finished"
        expected, given = set(self._manifest.sae_names()), set(data.features)
        assert given == expected, f"segment {number}: rows of {given}, not of {expected}"
        name = f"{number:05d}"
        temporary = self._segments_dir / (_folder_name(name) + TEMPORARY_SUFFIX)
        write_segment_folder(temporary, data)
        entry = SegmentEntry(
            name=name,
            num_prompts=data.num_prompts,
            num_tokens=data.num_tokens,
            checksum=tree_checksum(temporary),
        )
        publish_folder(temporary, self._segments_dir / _folder_name(name))
        segments = sorted([*self._manifest.segments, entry], key=lambda segment: segment.number)
        self._save(segments, complete=False)

    def finish(self) -> RunManifest:
        """Mark the run complete and release it; every number from 0 to the last must be committed."""
        segments = self._manifest.segments
        assert segments, f"run {self.run_id} has no segment"
        assert [entry.number for entry in segments] == list(range(len(segments))), "a segment is missing"
        if not self._manifest.complete:
            self._save(segments, complete=True)
        self.close()
        return self._manifest

    def _save(self, segments: list[SegmentEntry], *, complete: bool) -> None:
        update = {
            "segments": segments,
            "num_prompts": sum(entry.num_prompts for entry in segments),
            "num_tokens": sum(entry.num_tokens for entry in segments),
            "complete": complete,
        }
        self._manifest = self._manifest.model_copy(update=update)
        replace_file(self._folder / MANIFEST_NAME, manifest_bytes(self._manifest))

    def close(self) -> None:
        """Release the run; what is committed stays, and a later writer resumes there."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _folder_name(segment: str) -> str:
    return f"{segment}.zarr"
