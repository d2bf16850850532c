"""What the verbs that try and describe labels begin with: a diff's contexts and the features asked for."""

import time
from dataclasses import dataclass, field
from typing import Any

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.labels.activity import Activity, activity
from ft_audit.engine.config import AuditConfig, computed_json
from ft_audit.engine.store import (
    DecoderNeighbor,
    DictionaryLabels,
    FeatureIndex,
    LabelText,
    Store,
)
from ft_audit.engine.store.diff_lookup import find_diff
from ft_audit.errors import ConfigError, StoreError

# What is lost at most when the verb is killed; each time leaves a file.
COMMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A diff with the copy of its features, and what its base's tokens stand for."""

    evidence: Evidence
    index: FeatureIndex
    vocabulary: list[str]
    asked: str | None
    """`all` that have a label, numbers with commas between them, or None for the leading ones."""

    @property
    def saes(self) -> list[str]:
        """The names of the diff's dictionaries."""
        return [sae for hook in self.evidence.hooks for sae in hook.saes]

    def features(self, sae: str) -> list[int]:
        """The features asked for."""
        return asked_features(self.evidence, sae, self.asked)

    def activity(self, sae: str, feature: int) -> Activity:
        """Where a feature fires on the suites that were compared."""
        return activity(self.index, sae, self.evidence.suites_of(sae), feature)

    def neighbors(self, sae: str, feature: int) -> list[int]:
        """The features of the most similar directions, the nearest first."""
        rows = self.evidence.labels_of(sae).of(DecoderNeighbor, feature)
        return [row.neighbor for row in sorted(rows, key=lambda row: -row.cosine)]


def asked_features(evidence: Evidence, sae: str, asked: str | None) -> list[int]:
    """The features of one dictionary that LabelJob.asked names; ConfigError for what is no number."""
    if asked is None:
        return evidence.leading_features(sae)
    if asked == "all":
        return sorted(evidence.labels_of(sae).features(LabelText))
    texts = [text.strip() for text in asked.split(",")]
    if wrong := [text for text in texts if not text.isdecimal()]:
        raise ConfigError(f"--features: {wrong[0]!r} is no feature: give numbers with commas, or all")
    return list(dict.fromkeys(int(text) for text in texts))


def open_job(config: AuditConfig, diff: str | None, asked: str | None) -> LabelJob:
    """The job over the config's newest diff, or the one named; StoreError where something must come first."""
    store = Store(config.store)
    reader = find_diff(store, config.name, computed_json(config), diff).reader
    vocabulary = store.vocabulary(str(reader.manifest.summary["models"]["base"]["sha256"]))
    if not reader.index_paths():
        raise StoreError(
            f"diff {reader.manifest.diff_id} has no feature index, so there is no context to try a label on: "
            "set `precompute.feature_index: true` and run `ft-audit precompute` again"
        )
    if vocabulary is None:
        raise StoreError(
            f"store {store.location} does not say what the base's token ids stand for: run `ft-audit labels "
            "build` with this config first"
        )
    return LabelJob(Evidence(store.location, reader), FeatureIndex(reader), vocabulary, asked)


@dataclass(slots=True)
class Committing:
    """Collects rows of one kind and stores them every so often, and when the `with` ends, however it does."""

    labels: DictionaryLabels
    num: int = 0
    _rows: list[Any] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def add(self, row: Any) -> None:
        """Take one row."""
        self._rows.append(row)
        self.num += 1
        if time.monotonic() - self._since >= COMMIT_S:
            self._commit()

    def _commit(self) -> None:
        self.labels.add(self._rows)
        self._rows, self._since = [], time.monotonic()

    def __enter__(self) -> "Committing":
        return self

    def __exit__(self, *_: object) -> None:
        self._commit()
