"""Owns what a reference to a dictionary means: a folder, shipped data, or a folder of a hub repository."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ft_audit.errors import SaeError
from ft_audit.sae.formats.gemma_scope import CONFIG_FILE, PARAMS_FILE, load_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae

SHIPPED, HUB = "configs:", "hub:"


def load_sae(ref: str, base_dir: Path, folder: str | None = None) -> JumpReluSae:
    """The dictionary that `ref` names, in float32 on the CPU.

    `ref` is a local folder (relative ones to `base_dir`), `configs:REL` for one that ships with the
    package, or a hub repository: `OWNER/NAME` with `folder`, or `OWNER/NAME/FOLDER…` in one. With
    `folder`, a local `ref` is a copy of such a repository. Raises SaeError naming what is wrong.
    """
    return load_gemma_scope(find_sae(ref, base_dir, folder))


def find_sae(ref: str, base_dir: Path, folder: str | None = None) -> Path:
    """The local folder that `ref` names, fetched first when it lies on the hub."""
    if ref.startswith(SHIPPED):
        shipped = _shipped_folder() / ref.removeprefix(SHIPPED)
        return _existing(ref, shipped / folder if folder else shipped)
    path = base_dir / Path(ref).expanduser()
    if ref.startswith((".", "/", "~")) or (path.is_dir() and not ref.startswith(HUB)):
        return _existing(ref, path / folder if folder else path)
    ref = ref.removeprefix(HUB)
    if folder is None:
        owner, _, rest = ref.partition("/")
        name, _, folder = rest.partition("/")
        if not folder:
            raise SaeError(
                f"sae {ref!r}: no folder {path}, and a hub repository needs the folder in it too, as in "
                f"google/gemma-scope-2-1b-it/resid_post/layer_22_width_16k_l0_medium"
            )
        ref = f"{owner}/{name}"
    return _fetched(ref, folder.strip("/"))


def _shipped_folder() -> Path:
    # The folder has no __init__.py, so that importlib.resources gives a bundle of paths and no path.
    spec = find_spec("ft_audit.configs")
    assert spec is not None and spec.submodule_search_locations, "the package's own data is always there"
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(ref: str, path: Path) -> Path:
    if not path.is_dir():
        raise SaeError(f"sae {ref!r}: no such folder {path}; it should hold {CONFIG_FILE} and {PARAMS_FILE}")
    return path


def _fetched(repo_id: str, folder: str) -> Path:
    """Only the two files: the examples beside them are hundreds of megabytes."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [f"{folder}/{CONFIG_FILE}", f"{folder}/{PARAMS_FILE}"]
    try:
        snapshot = Path(snapshot_download(repo_id, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:
        raise SaeError(
            f"sae {repo_id}/{folder}: cannot fetch it from the hub ({type(error).__name__}: {error}); check "
            f"the name and your access to the repository, or give a local folder"
        ) from error
    if not (snapshot / folder / PARAMS_FILE).is_file():
        raise SaeError(
            f"sae {repo_id}/{folder}: the repository has no {folder}/{PARAMS_FILE}; check the folder's name"
        )
    return snapshot / folder
