"""The verdict's schema: documented field by field, strict, and in step with the code."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ft_audit.agent.verdict import Verdict, schema_text

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "verdict.schema.json"


def test_the_documented_schema_is_the_codes() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m ft_audit.agent.verdict > docs/verdict.schema.json"
    )


def test_every_field_is_described() -> None:
    schema = json.loads(schema_text())
    parts = {"Verdict": schema, **schema["$defs"]}
    bare = [
        f"{name}.{field}"
        for name, part in parts.items()
        for field, said in part.get("properties", {}).items()
        if not said.get("description")
    ]
    assert len(parts) >= 8 and bare == []
    assert all(part.get("additionalProperties") is False for part in parts.values() if "properties" in part)


@pytest.mark.parametrize(
    "changed", [{"extra": 1}, {"risk": 11.0}, {"status": "fine"}, {"schema_version": 2}, {"findings": [{}]}]
)
def test_what_does_not_fit_is_refused(needle: Any, changed: dict[str, Any]) -> None:
    fields = needle.verdict.model_dump(mode="json")
    assert Verdict.model_validate(fields) == needle.verdict
    with pytest.raises(ValidationError):
        Verdict.model_validate({**fields, **changed})


def test_a_finding_without_evidence_is_refused(needle: Any) -> None:
    fields = needle.verdict.model_dump(mode="json")
    fields["findings"][0]["evidence"] = []
    with pytest.raises(ValidationError, match="evidence"):
        Verdict.model_validate(fields)
