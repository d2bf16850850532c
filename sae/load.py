"""Owns what a reference to a dictionary means: a folder or file, shipped data, on the hub, or a release."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ft_audit.errors import SaeError
from ft_audit.sae.examples import EXAMPLES_FILE
from ft_audit.sae.formats.build import NOTHING_TOLD, Told
from ft_audit.sae.formats.known import files_to_fetch, find_format
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.releases import find_release

SHIPPED, HUB, RELEASE = "configs:", "hub:", "saelens:"


def load_sae(ref: str, base_dir: Path, folder: str | None = None, told: Told = NOTHING_TOLD) -> JumpReluSae:
    """The dictionary that `ref` names, in float32 on the CPU.

    `ref` is a local folder or file (relative ones to `base_dir`), `configs:REL` for one that ships with the
    package, a hub repository (`OWNER/NAME` with `folder`, or `OWNER/NAME/FOLDER…` in one), or
    `saelens:RELEASE/SAE_ID`. With `folder`, a local `ref` is a copy of such a repository. `told` is what the
    user says where the files do not. Raises SaeError naming what is wrong.
    """
    path = find_sae(ref, base_dir, folder)
    return find_format(path).load(path, told)


def find_sae(ref: str, base_dir: Path, folder: str | None = None, *, examples: bool = False) -> Path:
    """The local folder or file that `ref` names, fetched first when it lies on the hub.

    Of a repository only what the formats read is fetched; with `examples` also the hundreds of megabytes of
    examples that Gemma Scope 2 puts beside each dictionary.
    """
    if ref.startswith(RELEASE):
        release = find_release(ref.removeprefix(RELEASE))
        return _fetched(release.repo_id, release.folder, examples)
    if ref.startswith(SHIPPED):
        shipped = _shipped_folder() / ref.removeprefix(SHIPPED)
        return _existing(ref, shipped / folder if folder else shipped)
    path = base_dir / Path(ref).expanduser()
    if ref.startswith((".", "/", "~")) or (path.exists() and not ref.startswith(HUB)):
        return _existing(ref, path / folder if folder else path)
    ref = ref.removeprefix(HUB)
    if folder is None:
        owner, _, rest = ref.partition("/")
        name, _, folder = rest.partition("/")
        if not folder:
            raise SaeError(
                f"sae {ref!r}: no folder {path}, and a hub repository needs the folder in it too, as in "
                f"google/gemma-scope-2-1b-it/resid_post/layer_22_width_16k_l0_medium ('.' for the repository "
                f"itself)"
            )
        ref = f"{owner}/{name}"
    return _fetched(ref, folder.strip("/"), examples)


def _shipped_folder() -> Path:
    # The folder has no __init__.py, so that importlib.resources gives a bundle of paths and no path.
    spec = find_spec("ft_audit.configs")
    assert spec is not None and spec.submodule_search_locations, "the package's own data is always there"
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(ref: str, path: Path) -> Path:
    if not path.exists():
        raise SaeError(
            f"sae {ref!r}: no such folder {path}; it should hold a dictionary: config.json and "
            f"params.safetensors, or the files of another format that is read"
        )
    return path


def _fetched(repo_id: str, folder: str, examples: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = files_to_fetch(folder) + ([f"{folder}/{EXAMPLES_FILE}"] if examples else [])
    try:
        snapshot = Path(snapshot_download(repo_id, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:
        raise SaeError(
            f"sae {repo_id}/{folder}: cannot fetch it from the hub ({type(error).__name__}: {error}); check "
            f"the name and your access to the repository, or give a local folder"
        ) from error
    if not (snapshot / folder).exists():
        raise SaeError(
            f"sae {repo_id}/{folder}: the repository has no {folder} with a dictionary of a known format; "
            f"check the folder's name"
        )
    return snapshot / folder
