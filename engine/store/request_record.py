"""What became of a request for more evidence, as a file with its own checksum."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ft_audit.engine.store.canonical import canonical_json, pretty_json
from ft_audit.engine.store.manifest import TableEntry
from ft_audit.engine.store.seal import checksum

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Part):
    """How one model answered the prompts as transformed, or as they are."""

    variant: Literal["transformed", "control"]
    side: Side
    num: int
    refused: int
    complied: int
    broken: int
    decoded: int
    """Answers that are written in the request's encoding; 0 without one."""


class RequestRecord(_Part):
    """What became of a request: its answers, or why it could not be put."""

    schema_version: Literal[1] = 1
    request: str
    diff: str
    refusal: str | None = None
    table: TableEntry | None = None
    counts: tuple[Counts, ...] = ()
    prompts_sha256: str = ""
    """Of the prompts as they were before the transform."""
    asked_of: str = ""
    """Device and versions that gave the answers."""


def record_bytes(record: RequestRecord) -> bytes:
    """Return the record's file with its own checksum in it."""
    fields = record.model_dump(mode="json")
    return pretty_json({**fields, "checksum": checksum(canonical_json(fields).encode())})


def read_record(content: bytes) -> RequestRecord | None:
    """Return what `record_bytes` was called on; None where that is not what was written."""
    try:
        fields = json.loads(content)
        own = fields.pop("checksum")
        record = RequestRecord.model_validate(fields)
        whole: bool = own == checksum(canonical_json(fields).encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if whole else None


def count_answers(rows: Sequence[Mapping[str, Any]]) -> list[Counts]:
    """Return how each model answered, transformed and untransformed."""
    found = []
    for variant in ("transformed", "control"):
        for side in SIDES:
            own = [row for row in rows if (row["variant"], row["side"]) == (variant, side)]
            if own:
                totals = {name: sum(row[name] for row in own) for name in ("refused", "complied", "broken")}
                num_decoded = sum(row["decoded"] is not None for row in own)
                found.append(
                    Counts.model_validate(
                        {
                            "variant": variant,
                            "side": side,
                            "num": len(own),
                            "decoded": num_decoded,
                            **totals,
                        }
                    )
                )
    return found
