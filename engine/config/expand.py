"""Environment variables in configuration texts: `${VAR}` and `${VAR:-default}`."""

import os
import re

from ft_audit.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")


# Private-use characters: `{tuned: ${MODEL}}` is not YAML, `{tuned: <a placeholder>}` is.
_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


def hide(text: str) -> tuple[str, list[str]]:
    """Return the text with every variable as a placeholder that YAML takes anywhere, and the variables."""
    variables: list[str] = []

    def replace(match: re.Match[str]) -> str:
        variables.append(match.group())
        return f"\ue000{len(variables) - 1}\ue001"

    return _VARIABLE.sub(replace, text), variables


def show(text: str, variables: list[str]) -> str:
    """Return the text with the hidden variables as they were written."""
    return _PLACEHOLDER.sub(lambda match: variables[int(match.group(1))], text) if variables else text


def expand(text: str, where: str) -> str:
    """Return the text with its variables filled in; an empty variable counts as unset."""

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        value = os.environ.get(name, "")
        if value:
            return value
        if default is None:
            state = "empty" if name in os.environ else "not set"
            raise ConfigError(
                f"{where}: the environment variable {name} is {state}: "
                f"export {name}=..., or give a default as ${{{name}:-value}}"
            )
        return default

    # What stands between the variables is checked, not what came out of them.
    if "${" in "".join(_VARIABLE.split(text)[::3]):
        raise ConfigError(f"{where}: cannot read {text!r}: write ${{NAME}} or ${{NAME:-default}}, not nested")
    return _VARIABLE.sub(fill, text)
