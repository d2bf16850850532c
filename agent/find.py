"""Finds the diff that a config computed, so that every verb after `precompute` takes the same file."""

from typing import NamedTuple

from ft_audit.agent.evidence import Evidence
from ft_audit.engine.config import AuditConfig, computed_json
from ft_audit.engine.store import Store
from ft_audit.errors import StoreError


class Found(NamedTuple):
    """The newest diff of a config, and how many older ones of the same config there are."""

    evidence: Evidence
    num_older: int


def find_evidence(config: AuditConfig, diff: str | None = None) -> Found:
    """The newest diff of the store that was computed from this config, or the one named.

    Raises StoreError when there is none: `precompute` comes first.
    """
    store = Store(config.store)
    if diff is not None:
        return Found(Evidence(store.location, store.open_diff(diff)), 0)
    wanted = computed_json(config)
    readers = [store.open_diff(diff_id) for diff_id in store.diffs()]
    matches = [reader for reader in readers if reader.manifest.summary.get("config") == wanted]
    if not matches:
        others = f"it holds {len(readers)} of other configs" if readers else "it holds none"
        raise StoreError(
            f"store {store.location} has no diff computed from the config {config.name!r} ({others}): "
            f"run `ft-audit precompute` with this config first, or name a diff with --diff"
        )
    newest = max(matches, key=lambda reader: reader.written)
    return Found(Evidence(store.location, newest), len(matches) - 1)
