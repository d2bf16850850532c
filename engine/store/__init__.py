"""The evidence on the disk: content-addressed runs and diffs, written whole and verified when read."""

from ft_audit.engine.store.array_sink import ArraySink
from ft_audit.engine.store.canonical import canonical_json, content_id, run_id
from ft_audit.engine.store.context import Context
from ft_audit.engine.store.diff_reader import DiffReader
from ft_audit.engine.store.diff_writer import DiffWriter
from ft_audit.engine.store.feature_index_reader import FeatureIndex
from ft_audit.engine.store.gc import Garbage, find_garbage, remove_garbage
from ft_audit.engine.store.inventory import StoredItem, list_store, verify_store
from ft_audit.engine.store.labels import (
    DecoderNeighbor,
    DictionaryLabels,
    LabelScore,
    LabelText,
    TokenEffect,
)
from ft_audit.engine.store.ledger import Ledger
from ft_audit.engine.store.manifest import DiffManifest, HookEntry, RunManifest, SaeEntry, SegmentEntry
from ft_audit.engine.store.range_array import RangeArray
from ft_audit.engine.store.requests import Requests
from ft_audit.engine.store.rows import decode_bf16, encode_bf16
from ft_audit.engine.store.run_reader import Damage, RunReader
from ft_audit.engine.store.run_writer import RunWriter
from ft_audit.engine.store.segment import SegmentData
from ft_audit.engine.store.segment_sink import SegmentSink
from ft_audit.engine.store.store import Store
from ft_audit.engine.store.table import Table

__all__ = [
    "ArraySink",
    "Context",
    "Damage",
    "DecoderNeighbor",
    "DictionaryLabels",
    "DiffManifest",
    "DiffReader",
    "DiffWriter",
    "FeatureIndex",
    "Garbage",
    "HookEntry",
    "LabelScore",
    "LabelText",
    "Ledger",
    "RangeArray",
    "Requests",
    "RunManifest",
    "RunReader",
    "RunWriter",
    "SaeEntry",
    "SegmentData",
    "SegmentEntry",
    "SegmentSink",
    "Store",
    "StoredItem",
    "Table",
    "TokenEffect",
    "canonical_json",
    "content_id",
    "decode_bf16",
    "encode_bf16",
    "find_garbage",
    "list_store",
    "remove_garbage",
    "run_id",
    "verify_store",
]
