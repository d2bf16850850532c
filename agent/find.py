"""Finds the diff that a config computed, so that every verb after `precompute` takes the same file."""

from typing import NamedTuple

from ft_audit.agent.evidence import Evidence
from ft_audit.engine.config import AuditConfig, computed_json
from ft_audit.engine.store import Store
from ft_audit.engine.store.diff_lookup import find_diff


class Found(NamedTuple):
    """The newest diff of a config, and how many older ones of the same config there are."""

    evidence: Evidence
    num_older: int


def find_evidence(config: AuditConfig, diff: str | None = None) -> Found:
    """The newest diff of the store that was computed from this config, or the one named.

    Raises StoreError when there is none: `precompute` comes first.
    """
    store = Store(config.store)
    found = find_diff(store, config.name, computed_json(config), diff)
    return Found(Evidence(store.location, found.reader), found.num_older)
