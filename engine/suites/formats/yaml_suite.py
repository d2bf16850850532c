"""Prompt suites written by hand in YAML: a list of prompts, each a question, a chat or a raw text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ft_audit.engine.suites.formats.record import Record, kind_of
from ft_audit.errors import DataError


class SuiteEntry(BaseModel):
    """One prompt: exactly one of `prompt` (a user's question), `messages` and `text` (no chat template)."""

    model_config = ConfigDict(extra="forbid")

    id: str | int | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    system_prompt: str | None = None
    group: str | None = None
    use_chat_template: bool = True


class SuiteFile(BaseModel):
    """The whole file; `suite_name` is an older word for `name`."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    suite_name: str | None = None
    description: str | None = None
    prompts: list[SuiteEntry] = Field(min_length=1)

    @field_validator("prompts", mode="before")
    @classmethod
    def _bare_questions(cls, value: object) -> object:
        """Read a bare string as a user's question."""
        if not isinstance(value, list):
            return value
        return [{"prompt": item} if isinstance(item, str) else item for item in value]


def read_yaml_suite(path: Path, document: object, suite: str) -> Iterator[Record]:
    """Yield the prompts of a parsed suite file.

    Raises:
        DataError: a key or a value that means nothing here, by name.
    """
    if not isinstance(document, dict) or "prompts" not in document:
        found = ", ".join(map(str, document)) if isinstance(document, dict) else kind_of(document)
        raise DataError(f"{path}: no prompt suite (found: {found or 'nothing'}); give it a list `prompts`")
    try:
        parsed = SuiteFile.model_validate(document)
    except ValidationError as err:
        raise DataError(f"{path}: {_first_error(err)}") from err
    name = parsed.name or parsed.suite_name or suite
    for row, item in enumerate(parsed.prompts):
        label = str(item.id) if item.id is not None else str(row)
        where = f"{path}: prompt {label}"
        yield Record(_fields(item, where), where, f"{path.name}#{label}", row, name)


def parse_yaml(path: Path) -> object:
    """Return the YAML document.

    Raises:
        DataError: with the line of the mistake.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as err:
        line = f":{err.problem_mark.line + 1}" if err.problem_mark else ""
        raise DataError(f"{path}{line}: not YAML ({err.problem}); mend the line") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: not YAML ({err}); save it as UTF-8 text") from err


def _fields(entry: SuiteEntry, where: str) -> dict[str, object] | DataError:
    given = [name for name in ("prompt", "messages", "text") if getattr(entry, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        return DataError(f"{where}: give exactly one of prompt, messages and text (found: {found})")
    fields: dict[str, object] = {given[0]: getattr(entry, given[0])}
    if not entry.use_chat_template:
        if entry.prompt is None or entry.system_prompt is not None:
            return DataError(f"{where}: use_chat_template: false needs a plain `prompt`; or write `text`")
        fields = {"text": entry.prompt}
    if entry.system_prompt is not None:
        if entry.text is not None:
            return DataError(f"{where}: a raw text has no system_prompt; write `prompt` instead")
        if entry.messages is not None:
            system = {"role": "system", "content": entry.system_prompt}
            fields["messages"] = [system, *entry.messages]
        else:
            fields["system_prompt"] = entry.system_prompt
    if entry.group is not None:
        fields["group"] = entry.group
    return fields


def _first_error(err: ValidationError) -> str:
    first = err.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = SuiteEntry if place.startswith("prompts") else SuiteFile
        return f"{place}: unknown key; known are {', '.join(known.model_fields)}"
    if place == "prompts" and first["type"] == "too_short":
        return "prompts is empty; give at least one"
    return f"{place}: {first['msg']}"
