"""Turns pydantic's complaints into sentences: where it was written, what is wrong, what was meant."""

import difflib
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ft_audit.engine.config.document import Document
from ft_audit.errors import ConfigError


def explain(error: ValidationError, document: Document, model: type[BaseModel]) -> ConfigError:
    """Return a ConfigError with one line for each thing that is wrong."""
    lines = [_line(detail, document, model) for detail in error.errors(include_url=False)]
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(
        f"{document.source}: {len(lines)} things are wrong:\n" + "\n".join(f"  {x}" for x in lines)
    )


def _line(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> str:
    place = detail["loc"]
    key = ".".join(str(part) for part in place)
    where = document.origin(place)
    if detail["type"] == "missing":
        return f"{where}: {key} is missing"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key {key}: {_suggestion(place, model)}"
    # A value travels as JSON, but a writer of YAML knows neither object nor array.
    message = detail["msg"].removeprefix("Value error, ")
    message = message.replace("an object", "keys and values").replace("valid array", "list")
    message = message[0].lower() + message[1:]
    given = "" if isinstance(detail["input"], dict | list) else f" (given: {detail['input']!r})"
    return f"{where}: {key + ': ' if key else ''}{message}{given}"


def _suggestion(place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    parent = _model_at(model, place[:-1])
    known = list(parent.model_fields) if parent else []
    key = str(place[-1])
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {'.'.join(str(part) for part in (*place[:-1], near[0]))}?"
    elsewhere = [path for path in _paths(model, ()) if path.rpartition(".")[2] == key]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here are {', '.join(known)}"


def _model_at(model: type[BaseModel], place: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model that describes the mapping at the place."""
    for part in place:
        if isinstance(part, int):
            continue  # an item of a list is described by the list's own field
        field = model.model_fields.get(part)
        inner = _inner_model(field.annotation) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner_model(part) for part in typing.get_args(annotation))
    return next((inner for inner in found if inner is not None), None)


def _paths(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield ".".join((*above, name))
        inner = _inner_model(field.annotation)
        if inner is not None:
            yield from _paths(inner, (*above, name))
