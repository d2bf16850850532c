"""Reads a YAML file into a config: variables filled in, overrides applied, every mistake explained."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ft_audit.engine.config.document import Document, construct, expand_tree, read_document
from ft_audit.engine.config.explain import explain
from ft_audit.engine.config.overrides import apply_overrides
from ft_audit.engine.config.refs import resolve_path
from ft_audit.engine.config.schema import AuditConfig
from ft_audit.engine.config.toolkit_keys import refuse_toolkit_keys
from ft_audit.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> AuditConfig:
    """Return the audit config in the file; `configs:NAME` names a shipped one.

    Raises:
        ConfigError: no such file, not YAML, a key unknown or missing, or a value of the wrong kind.
    """
    file = find_config(path)
    config = load_yaml(file, AuditConfig, overrides, refuse_toolkit_keys)
    config._base_dir = file.resolve().parent
    return config


def find_config(path: str | Path) -> Path:
    """Return the file that was named on a command line, relative to the working directory."""
    text = str(path)
    return (
        resolve_path(text, Path.cwd())
        if text.startswith(("configs:", "package:"))
        else Path(text).expanduser()
    )


def load_yaml(
    path: Path,
    model: type[Model],
    overrides: Sequence[str] = (),
    check: Callable[[Document], None] | None = None,
) -> Model:
    """Return the file as the given pydantic model; `check` sees the values as written, and may refuse."""
    written, node = read_document(path)
    if check is not None:
        check(written)
    expand_tree(node, written.source)
    filled = Document(written.source, construct(node), written.origins)
    document = apply_overrides(filled, overrides)
    try:
        # Through JSON: there strict types still take a list for a tuple, as a YAML file can only say list.
        return model.model_validate_json(json.dumps(document.values, default=_not_plain))
    except ValidationError as error:
        raise explain(error, document, model) from None
    except TypeError as error:
        raise ConfigError(f"{document.source}: {error}") from None


def _not_plain(value: object) -> str:
    raise TypeError(f"{value} is read by YAML as a {type(value).__name__}: put it in quotes")
