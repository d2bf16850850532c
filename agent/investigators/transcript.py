"""The record of an agent's investigation: every message, in order, enough to go on from and to read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ft_audit.agent.assessment import Citation
from ft_audit.engine.store import Store
from ft_audit.errors import StoreError

NAME = "transcript"


@dataclass(slots=True)
class Transcript:
    """One investigation's entries, kept in the store as it goes on.

    An entry has a `message` as chat completions have it, and beside it what that turn took (`tokens_in`,
    `tokens_out`, `seconds`) or, of a tool's answer, the `citation`.
    """

    store: Store
    audit: str
    name: str = NAME
    entries: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, store: Store, audit: str, name: str = NAME) -> "Transcript":
        """Return what is there, without a last line that was cut off; nothing for a new investigation."""
        try:
            content = store.read_audit_file(audit, file_of(name)).decode("utf-8")
        except StoreError:
            return cls(store, audit, name)
        entries = []
        for line in content.splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
        return cls(store, audit, name, entries)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far."""
        return [entry["message"] for entry in self.entries]

    def total(self, name: str) -> float:
        """Return the sum of a number over all entries."""
        return float(sum(entry.get(name, 0) for entry in self.entries))

    def count(self, role: str) -> int:
        """Return how many messages of a role there are."""
        return sum(entry["message"]["role"] == role for entry in self.entries)

    def citations(self) -> dict[str, Citation]:
        """Return every answer that was given, by its evidence id."""
        found = (Citation.model_validate(e["citation"]) for e in self.entries if e.get("citation"))
        return {citation.evidence_id: citation for citation in found}

    def add(self, message: dict[str, Any], **beside: Any) -> None:
        """Write one more entry."""
        self.entries.append({"message": message, **beside})
        lines = "".join(json.dumps(entry, ensure_ascii=True) + "\n" for entry in self.entries)
        self.store.put_audit_file(self.audit, file_of(self.name), lines.encode())


def names(numbers: Sequence[int]) -> list[str]:
    """Return the names of several investigations' transcripts; without a number, of the one alone."""
    return [f"{NAME}-{number}" for number in numbers] or [NAME]


def file_of(name: str) -> str:
    """Return the file of a transcript of that name, in the folder of its audit."""
    return f"{name}.jsonl"
