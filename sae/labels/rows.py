"""The rows of Neuronpedia's API and data set that we read; what else they hold is left out."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ft_audit.errors import ServiceError


class _Row(BaseModel):
    # A service may add fields at any time; those we read must have the types we know.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ExplanationRow(_Row):
    """What one model or person says of a feature."""

    description: str
    explanationModelName: str | None = None
    typeName: str | None = None

    @property
    def author(self) -> str:
        """The model that wrote it and its method."""
        return ", ".join(part for part in (self.explanationModelName, self.typeName) if part) or "unknown"


class SourceRow(_Row):
    """The dictionary that a source was made from."""

    modelId: str
    id: str
    hfRepoId: str | None = None
    hfFolderId: str | None = None
    saelensRelease: str | None = None
    saelensSaeId: str | None = None
    saelensConfig: Any = None


class FeatureRow(_Row):
    """One feature; only a question for a single feature brings the source."""

    modelId: str
    layer: str
    index: str
    hookName: str | None = None
    source: SourceRow | None = None
    explanations: list[ExplanationRow] = []


class BulkExplanation(ExplanationRow):
    """An explanation in the data set, where it names its feature itself."""

    modelId: str
    layer: str
    index: str


Row = TypeVar("Row", FeatureRow, SourceRow, BulkExplanation)


def parse(kind: type[Row], content: bytes | str, where: str) -> Row:
    """Return one row of JSON; ServiceError when it is not what Neuronpedia answers."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _unlike(where, error) from None


def parse_features(content: bytes, where: str) -> list[FeatureRow]:
    """Return a list of rows."""
    try:
        return [FeatureRow.model_validate(row) for row in json.loads(content)]
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise _unlike(where, error) from None


def _unlike(where: str, error: Exception) -> ServiceError:
    first = str(error).partition("\n")[0][:200]
    return ServiceError(f"{where} does not answer as Neuronpedia does ({first}): check the address")
