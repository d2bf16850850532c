"""Canonical JSON: one text for one value, so that ids and manifests are the same bytes everywhere."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """Return compact JSON with sorted keys; NaN and infinity are refused: JSON has no word for them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def pretty_json(value: Any) -> bytes:
    """Return the same value as a file a person can read: sorted, one key a line, newline at the end."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def content_id(identity: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the sha256 of the canonical JSON: the name of a run or a diff."""
    return hashlib.sha256(canonical_json(dict(identity)).encode()).hexdigest()[:16]


def run_id(identity: Mapping[str, Any]) -> str:
    """Return the id of the run that this identity determines to the byte."""
    return content_id(identity)
