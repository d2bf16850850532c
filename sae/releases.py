"""Owns `saelens:RELEASE/SAE_ID`: the repository and folder that SAELens's own list has for a release."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ft_audit.errors import MissingExtraError, SaeError

LIST_FILE = "pretrained_saes.yaml"
# What SAELens converts a release with -> whether its files are read here.
READ = (
    None,
    "sae_lens",
    "gemma_2",
    "gemma_3",
    "llama_scope",
    "dictionary_learning_1",
    "qwen_scope",
    "sparsify",
)


class Released(NamedTuple):
    """Where a released dictionary lies on the hub, and the model that the list names for it."""

    repo_id: str
    folder: str
    model_name: str


def find_release(name: str) -> Released:
    """The place of `RELEASE/SAE_ID`, from the list that the installed SAELens ships; loads nothing of it.

    Raises SaeError for an unknown name, with the nearest ones, or a kind that is not read; MissingExtraError
    where SAELens is not installed.
    """
    release, _, sae_id = name.partition("/")
    releases = read_list()
    if release not in releases:
        raise SaeError(f"saelens:{name}: no release {release!r}{_nearest(release, releases)}")
    entry: Mapping[str, Any] = releases[release]
    places = {str(sae["id"]): str(sae["path"]) for sae in entry["saes"]}
    if sae_id not in places:
        raise SaeError(f"saelens:{name}: release {release!r} has no {sae_id!r}{_nearest(sae_id, places)}")
    if entry.get("conversion_func") not in READ:
        raise SaeError(
            f"saelens:{name}: is of the kind {entry['conversion_func']!r}, which is not read; choose another "
            f"release"
        )
    loading = (entry.get("config_overrides") or {}).get("model_from_pretrained_kwargs") or {}
    if loading.get("center_writing_weights"):
        raise SaeError(
            f"saelens:{name}: was trained on a stream whose mean TransformerLens takes out "
            f"(center_writing_weights); choose a dictionary trained on the model as it is"
        )
    return Released(str(entry["repo_id"]), places[sae_id], str(entry["model"]))


@cache
def read_list() -> Mapping[str, Any]:
    """SAELens's own list: release to repository, model and dictionaries."""
    # Without importing it: that takes seconds and most of its dependencies.
    spec = find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "saelens: references are looked up in SAELens's own list, and it is not installed; "
            "pip install sae-lens, or give the repository and folder as OWNER/NAME/FOLDER"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / LIST_FILE
    try:
        # Forty thousand lines: the loader in C takes a tenth of the time, where PyYAML has it.
        found = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise SaeError(f"{path}: SAELens's list cannot be read ({error}); install sae-lens again") from error
    releases: Mapping[str, Any] = found
    return releases


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; the nearest are {', '.join(close)}" if close else ""
