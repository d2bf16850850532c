"""The manifests of runs and diffs: what is stored, how it came to be, and the checksum of every part."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ft_audit.engine.store.canonical import pretty_json
from ft_audit.errors import StoreError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SaeEntry(_Entry):
    """One dictionary that encoded a hook."""

    name: str
    width: int
    sha256: str


class HookEntry(_Entry):
    """One place in the model that was read, and the dictionaries that encoded it."""

    name: str
    layer: int
    site: str
    saes: list[SaeEntry] = []


class SegmentEntry(_Entry):
    """One committed segment: `segments/<name>.zarr`."""

    name: str
    num_prompts: int
    num_tokens: int
    checksum: str

    @property
    def number(self) -> int:
        return int(self.name)


class RunManifest(_Entry):
    """One model over one suite: everything that determines its bytes, and the segments so far."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    identity: dict[str, Any]
    num_prompts: int
    num_tokens: int
    hooks: list[HookEntry]
    segments: list[SegmentEntry]
    complete: bool

    def sae_names(self) -> list[str]:
        return [sae.name for hook in self.hooks for sae in hook.saes]


class GroupEntry(_Entry):
    """One group of `stats.zarr`: the names of its arrays and the checksum of its files."""

    arrays: list[str]
    checksum: str


class TableEntry(_Entry):
    """One file of `tables/`."""

    num_rows: int
    checksum: str


class DiffManifest(_Entry):
    """One base run against one tuned run: the summary that a reader starts from, and the parts."""

    schema_version: int = SCHEMA_VERSION
    diff_id: str
    identity: dict[str, Any]
    summary: dict[str, Any]
    groups: dict[str, GroupEntry]
    tables: dict[str, TableEntry]


Manifest = TypeVar("Manifest", RunManifest, DiffManifest)


def manifest_bytes(manifest: RunManifest | DiffManifest) -> bytes:
    """Return the manifest's file, the same bytes for the same content."""
    # Not mode="json": pydantic would write NaN as null, and a reader would take it for "not measured".
    return pretty_json(manifest.model_dump())


def read_manifest(folder: Path, kind: type[Manifest]) -> Manifest:
    """Return the manifest of a run or diff folder; StoreError says what is wrong with it and what to do."""
    path = folder / MANIFEST_NAME
    remedy = f"delete the folder {folder} and run `ft-audit precompute` again"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{folder} has no {MANIFEST_NAME}, so nothing in it can be read: {remedy}") from None
    # The version first: a manifest of another schema may differ in any other field.
    try:
        version = _SchemaVersion.model_validate_json(text).schema_version
    except ValidationError:
        raise StoreError(f"{path} is damaged (no readable schema_version in it): {remedy}") from None
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this ft-audit reads version {SCHEMA_VERSION}: "
            f"use the ft-audit that wrote it, or {remedy}"
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path} is damaged ({where}: {first['msg']}): {remedy}") from None


class _SchemaVersion(BaseModel):
    model_config = ConfigDict(extra="ignore")
    schema_version: int
