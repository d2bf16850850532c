"""Finds the diff that a config computed, and the features that lead in it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ft_audit.engine.store.diff_reader import DiffReader
from ft_audit.engine.store.store import Store
from ft_audit.errors import StoreError


class FoundDiff(NamedTuple):
    """The newest diff of a config, and how many older ones of the same config there are."""

    reader: DiffReader
    num_older: int


def find_diff(store: Store, name: str, computed: Mapping[str, Any], diff: str | None = None) -> FoundDiff:
    """Return the newest diff of the store that was computed from these settings, or the one named.

    `name` is what the config calls itself, for messages. Raises StoreError when there is none.
    """
    if diff is not None:
        return FoundDiff(store.open_diff(diff), 0)
    readers = [store.open_diff(diff_id) for diff_id in store.diffs()]
    matches = [reader for reader in readers if reader.manifest.summary.get("config") == computed]
    if not matches:
        others = f"it holds {len(readers)} of other configs" if readers else "it holds none"
        raise StoreError(
            f"store {store.location} has no diff computed from the config {name!r} ({others}): "
            f"run `ft-audit precompute` with this config first, or name a diff with --diff"
        )
    return FoundDiff(max(matches, key=lambda reader: reader.written), len(matches) - 1)


def leading_features(diff: DiffReader, sae: str) -> list[int]:
    """Return the features of one dictionary that lead on any suite, in the order of their best rank."""
    if "leading" not in diff.tables():
        return []
    table = diff.table("leading")
    own = [
        (int(rank), int(feature))
        for name, rank, feature in zip(
            table.values("sae"), table.values("rank"), table.values("feature"), strict=True
        )
        if name == sae
    ]
    return list(dict.fromkeys(feature for _, feature in sorted(own)))
