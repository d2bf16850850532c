"""The manifests of runs and diffs: what is stored, how it came to be, and the checksum of every part."""

import json
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from ft_audit.engine.store.canonical import canonical_json, pretty_json
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.seal import checksum
from ft_audit.errors import StoreError

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"


class DamagedManifestError(StoreError):
    """A manifest that is not what was written; what it speaks of may still be whole."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SaeEntry(_Entry):
    """One dictionary that encoded a hook."""

    name: str
    width: int
    sha256: str
    writes: tuple[str, ...] = ()
    """The hooks that it reconstructs; empty where that is the one that it encodes."""

    @model_serializer(mode="wrap")
    def _leave_out_the_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A run's id is the hash of its entries: that of a plain dictionary must not change.
        return {key: value for key, value in dump(self).items() if key != "writes" or value}


class HookEntry(_Entry):
    """One place in the model that was read, and the dictionaries that encoded it."""

    name: str
    layer: int
    site: str
    saes: list[SaeEntry] = []

    def reconstructed_by(self, sae: SaeEntry) -> tuple[str, ...]:
        """The hooks that one of its dictionaries reconstructs."""
        return sae.writes or (self.name,)


class SegmentEntry(_Entry):
    """One committed segment, `segments/<name>.zarr`; `checksum` is that of its list of checksums."""

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
    successor: dict[str, Any] | None = None
    """Set when the run was given up for another way to compute it; it then never becomes complete."""

    def sae_names(self) -> list[str]:
        return [sae.name for hook in self.hooks for sae in hook.saes]


class GroupEntry(_Entry):
    """One group of `stats.zarr`: the names of its arrays and the checksum of its list of checksums."""

    arrays: list[str]
    checksum: str


class TableEntry(_Entry):
    """One file of `tables/`."""

    num_rows: int
    checksum: str


class IndexEntry(_Entry):
    """One array of `features.zarr`: its length and the checksum of its list of checksums."""

    length: int
    checksum: str


class DiffManifest(_Entry):
    """One base run against one tuned run: the summary that a reader starts from, and the parts."""

    schema_version: int = SCHEMA_VERSION
    diff_id: str
    identity: dict[str, Any]
    summary: dict[str, Any]
    groups: dict[str, GroupEntry]
    tables: dict[str, TableEntry]
    index: dict[str, IndexEntry] = {}


Manifest = TypeVar("Manifest", RunManifest, DiffManifest)


def manifest_bytes(manifest: RunManifest | DiffManifest) -> bytes:
    """Return the manifest's file with its own checksum in it, the same bytes for the same content."""
    # Not mode="json": pydantic would write NaN as null, and a reader would take it for "not measured".
    content = json.loads(canonical_json(manifest.model_dump()))
    return pretty_json({**content, "checksum": _own_checksum(content)})


def read_manifest(place: Place, folder: str, kind: type[Manifest]) -> Manifest:
    """Return the manifest of a run's or diff's folder.

    Raises DamagedManifestError when it is missing or not what was written, StoreError when another ft-audit
    wrote it; both say what to do.
    """
    where = f"{place.location}/{folder}"
    remedy = f"delete the folder {where} and run `ft-audit precompute` again"
    text = place.read(f"{folder}/{MANIFEST_NAME}")
    if text is None:
        raise DamagedManifestError(f"{where} has no {MANIFEST_NAME}, so nothing in it can be read: {remedy}")
    path = f"{where}/{MANIFEST_NAME}"
    # The version first: a manifest of another schema may differ in any other field.
    try:
        content = json.loads(text)
        version = _SchemaVersion.model_validate(content).schema_version
    except (ValueError, RecursionError):
        raise DamagedManifestError(
            f"{path} is damaged (no readable schema_version in it): {remedy}"
        ) from None
    if content.pop("checksum", None) != _own_checksum(content) and version == SCHEMA_VERSION:
        raise DamagedManifestError(f"{path} is damaged (it does not have its checksum): {remedy}")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this ft-audit reads version {SCHEMA_VERSION}: "
            f"use the ft-audit that wrote it, or {remedy}"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DamagedManifestError(f"{path} is damaged ({field}: {first['msg']}): {remedy}") from None


def _own_checksum(content: dict[str, Any]) -> str:
    return checksum(canonical_json(content).encode())


class _SchemaVersion(BaseModel):
    model_config = ConfigDict(extra="ignore")
    schema_version: int
