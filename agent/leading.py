"""The leading differences of a diff as JSON values, for `top --json`."""

import dataclasses
import math
from typing import Any

from ft_audit.agent.evidence import Evidence


def leading_json(evidence: Evidence, limit: int) -> dict[str, Any]:
    """The leading features, templates and rows; quoted text is whole here, and escaped by JSON alone."""
    conditions = [condition for condition in evidence.conditions() if not condition.is_plain]
    value: dict[str, Any] = _plain(
        {
            "diff": evidence.diff_id,
            "features": [dataclasses.asdict(feature) for feature in evidence.leading(limit)],
            "templates": [dataclasses.asdict(condition) for condition in conditions[:limit]],
            "rows": [dataclasses.asdict(row) for row in evidence.rows(limit)],
        }
    )
    return value


def _plain(value: Any) -> Any:
    """NaN and infinity, which JSON has no word for, as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
