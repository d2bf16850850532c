"""One YAML file as plain values that remember where each of them was written."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ft_audit.engine.config.expand import expand, hide, show
from ft_audit.errors import ConfigError

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file; `origins` says for the place of a value which line or override it came from."""

    source: str
    values: dict[str, Any]
    origins: dict[Place, str] = field(default_factory=dict)

    def origin(self, place: Place) -> str:
        """Return where the value at the place, or what is nearest above it, was written."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.origins:
                return self.origins[place[:length]]
        return self.source


def read_document(path: Path) -> tuple[Document, yaml.Node]:
    """Return the file's values as they are written, variables not yet filled in, and its syntax tree.

    Raises:
        ConfigError: no such file, not YAML, a key given twice, or something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from None
    return parse_document(text, str(path))


def parse_document(text: str, source: str) -> tuple[Document, yaml.Node]:
    """Return the values of a YAML text as they are written, and its syntax tree."""
    node = compose(text, source)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{source}: expected keys and values (`name: ...`), found something else")
    origins = {place: f"{source}:{line}" for place, line in _lines(node, (), source, set())}
    return Document(source, construct(node), origins), node


def compose(text: str, source: str) -> yaml.Node | None:
    """Return the syntax tree of a YAML text, its variables standing in it as they are written."""
    hidden, variables = hide(text)
    try:
        node = yaml.compose(hidden, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {show(str(error), variables)}") from None
    for inner in _nodes(node, set()) if node is not None else ():
        if isinstance(inner, yaml.ScalarNode):
            inner.value = show(inner.value, variables)
    return node


def construct(node: yaml.Node) -> Any:
    """Return the plain value of a syntax tree."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}") from None
    finally:
        loader.dispose()


def expand_tree(node: yaml.Node, source: str) -> None:
    """Fill in the variables of every value of the tree, in place."""
    for inner in _nodes(node, set()):
        if isinstance(inner, yaml.ScalarNode) and "${" in inner.value:
            inner.value = expand(inner.value, f"{source}:{inner.start_mark.line + 1}")
            if inner.style is None:
                # Unquoted, so what the variable holds may be a number or null like any unquoted value.
                resolver = yaml.SafeLoader("")
                inner.tag = resolver.resolve(yaml.ScalarNode, inner.value, (True, False))  # type: ignore[no-untyped-call]


def _nodes(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    if id(node) in seen:  # an alias of a node met before
        return
    seen.add(id(node))
    yield node
    if not isinstance(node, yaml.ScalarNode):
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        for child in (child for pair in pairs for child in pair):
            yield from _nodes(child, seen)


def _lines(node: yaml.Node, place: Place, source: str, seen: set[int]) -> Iterator[tuple[Place, int]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in keys:
                raise ConfigError(f"{source}:{line}: the key {key.value!r} is given twice")
            keys.add(key.value)
            yield (*place, key.value), line
            yield from _lines(value, (*place, key.value), source, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*place, index), value.start_mark.line + 1
            yield from _lines(value, (*place, index), source, seen)
