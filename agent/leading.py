"""The leading differences of a diff, and any other view of it, as JSON values."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ft_audit.agent.dictionaries import agreements, coverages
from ft_audit.agent.evidence import Evidence


def leading_json(evidence: Evidence, limit: int) -> dict[str, Any]:
    """The leading features, templates and rows; quoted text is whole here, and escaped by JSON alone."""
    conditions = [condition for condition in evidence.conditions() if not condition.is_plain]
    leading = evidence.leading(limit)
    value: dict[str, Any] = as_json(
        {
            "diff": evidence.diff_id,
            "features": [
                as_json(feature) | {"label": as_json(evidence.label(feature.sae, feature.feature).best)}
                for feature in leading
            ],
            "coverage": coverages(evidence),
            "agreement": agreements(evidence),
            "templates": conditions[:limit],
            "rows": evidence.rows(limit),
        }
    )
    return value


def as_json(value: Any) -> Any:
    """Plain values out of views: NaN and infinity, which JSON has no word for, are null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list | tuple) else value
