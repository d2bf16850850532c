"""What a reference in a config means: a file of an installed package, shipped data, a path or a hub id."""

import difflib
import importlib.util
import re
from pathlib import Path

from ft_audit.errors import ConfigError

# A name that ends like a file is one, also without a leading ./: no hub id looks like this.
_FILE_SUFFIXES = {
    ".csv",
    ".gguf",
    ".json",
    ".jsonl",
    ".parquet",
    ".prompt",
    ".safetensors",
    ".txt",
    ".yaml",
    ".yml",
    ".gz",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*")
_HOW = (
    "write ./PATH for a file or folder beside the config, package:NAME/FILE for a file of an installed "
    "package, configs:NAME for a shipped one, or OWNER/NAME for the hub"
)


def resolve_ref(ref: str, base_dir: Path) -> Path | str:
    """Return the existing path that the reference names, or the hub id as text.

    Relative paths are read from `base_dir`, the folder of the file in which the reference stands.

    Raises:
        ConfigError: nothing is there, the package is not installed, or the text means nothing.
    """
    kind, colon, rest = ref.partition(":")
    if colon and kind == "package":
        return _package_path(ref, rest)
    if colon and kind == "configs":
        return _existing(ref, _package_dir("ft_audit.configs", ref) / rest)
    if colon and kind == "hub":
        return _hub_id(ref, rest)
    if ref.startswith(("./", "../", "/", "~")) or ref in {".", ".."}:
        return _existing(ref, base_dir / Path(ref).expanduser())
    if Path(ref).suffix.lower() in _FILE_SUFFIXES:
        return _existing(ref, base_dir / ref)
    if ref and (base_dir / ref).exists():
        raise ConfigError(
            f"{ref!r} is in {base_dir}, but could also be on the hub: write ./{ref} or hub:{ref}"
        )
    return _hub_id(ref, ref)


def resolve_path(ref: str, base_dir: Path) -> Path:
    """Return the path that the reference names, where a hub id has no meaning."""
    target = resolve_ref(ref, base_dir)
    if isinstance(target, str):
        raise ConfigError(f"{ref!r}: no such file, and a hub id does not fit here: {_HOW}")
    return target


def _hub_id(ref: str, name: str) -> str:
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{ref!r} is neither a path nor a hub id: {_HOW}")
    return name


def _existing(ref: str, path: Path) -> Path:
    if path.exists():
        return path.resolve()
    parent = path.parent
    if not parent.is_dir():
        raise ConfigError(f"{ref!r}: there is no folder {parent}: {_HOW}")
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith((".", "__")))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(names[:8]) or 'nothing'}"
    raise ConfigError(f"{ref!r}: {parent} has no {path.name}: {hint}")


def _package_path(ref: str, rest: str) -> Path:
    package, _, inner = rest.partition("/")
    module = package.replace("-", "_")
    if not module.isidentifier():
        raise ConfigError(f"{ref!r} is not a file of a package: {_HOW}")
    return _existing(ref, _package_dir(module, ref) / inner)


def _package_dir(module: str, ref: str) -> Path:
    # This finds the folder of a top-level package without running any of its code.
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pip_name = module.replace("_", "-")
        raise ConfigError(f"{ref!r}: package {module!r} is not installed: pip install {pip_name}")
    return Path(spec.submodule_search_locations[0])
