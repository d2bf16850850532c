"""Overrides from the command line: `key.sub=value`, the value read as YAML."""

from collections.abc import Sequence
from typing import Any

from ft_audit.engine.config.document import Document, Place, compose, construct, expand_tree
from ft_audit.errors import ConfigError


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Return the document with every override put in its place; list items are named by their number."""
    values, origins = document.values, dict(document.origins)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        origin = f"override {override!r}"
        if not equals or not all(parts):
            raise ConfigError(f"{origin}: write it as key=value, with dots for inner keys (audit.top=5)")
        values, place = _put(values, parts, _parse(text, origin), (), origin)
        origins = {at: line for at, line in origins.items() if at[: len(place)] != place}
        origins[place] = origin
    return Document(document.source, values, origins)


def _parse(text: str, origin: str) -> Any:
    node = compose(text, origin)
    if node is None:
        return None
    expand_tree(node, origin)
    return construct(node)


def _put(inside: Any, parts: list[str], value: Any, above: Place, origin: str) -> tuple[Any, Place]:
    """Return a copy of `inside` with the value set at the parts, and the place at which it now stands."""
    head, *rest = parts
    where = ".".join(str(part) for part in above) or "the config"
    if isinstance(inside, list):
        if not head.isdecimal() or int(head) >= len(inside):
            numbers = f"0 to {len(inside) - 1}" if inside else "none: it is empty"
            raise ConfigError(f"{origin}: {where} is a list; {head!r} is not one of its items ({numbers})")
        index = int(head)
        new, place = (
            _put(inside[index], rest, value, (*above, index), origin) if rest else (value, (*above, index))
        )
        return [*inside[:index], new, *inside[index + 1 :]], place
    if inside is None:
        inside = {}
    if not isinstance(inside, dict):
        raise ConfigError(f"{origin}: {where} is {inside!r}, which has no inner key {head!r}")
    here = (*above, head)
    new, place = _put(inside.get(head), rest, value, here, origin) if rest else (value, here)
    return {**inside, head: new}, place
