"""Whether labels belong to a dictionary: its published place, width and hook against what a source says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ft_audit.errors import SaeError
from ft_audit.sae.labels.rows import BulkExplanation, FeatureRow, SourceRow
from ft_audit.sae.load import HUB, RELEASE, SHIPPED
from ft_audit.sae.releases import find_release

_LAYER = re.compile(r"(?:^|\.)(?:blocks|layers|h)\.(\d+)\.")
# As TransformerLens and Hugging Face's modules call our sites; other names decide nothing.
_SITES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "attn_z",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "hook_mlp_in": "mlp_in",
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_z",
    "post_feedforward_layernorm.output": "mlp_out",
    "pre_feedforward_layernorm.output": "mlp_in",
}


class Place(NamedTuple):
    """Where a dictionary is published; what is not known is None."""

    repo_id: str | None = None
    folder: str | None = None
    saelens_release: str | None = None
    saelens_id: str | None = None


def published_place(ref: str, base_dir: Path, stated: Place) -> Place:
    """Return where the dictionary that `ref` names (sae/load.py) is published.

    A reference to the hub or to a release says it itself; `stated` is taken for files of this machine alone.
    """
    if ref.startswith(RELEASE):
        name = ref.removeprefix(RELEASE)
        release, _, sae_id = name.partition("/")
        found = find_release(name)
        return Place(found.repo_id, found.folder, release, sae_id)
    path = base_dir / Path(ref).expanduser()
    if ref.startswith((".", "/", "~", SHIPPED)) or (path.exists() and not ref.startswith(HUB)):
        return stated
    owner, name, folder = ref.removeprefix(HUB).split("/", 2)
    return Place(f"{owner}/{name}", folder)


@dataclass(frozen=True, slots=True)
class PublishedSae:
    """A dictionary that was loaded, and where it is published."""

    name: str
    layer: int
    site: str
    width: int
    place: Place


def check_source(sae: PublishedSae, source: SourceRow) -> None:
    """Raise SaeError naming what differs, where the source was made from another dictionary than `sae`."""
    theirs = (source.hfRepoId, source.hfFolderId)
    theirs_saelens = (source.saelensRelease, source.saelensSaeId)
    ours, ours_saelens = sae.place[:2], sae.place[2:]
    if None not in ours and None not in theirs:
        _same(sae, source, "repository and folder", _slashed(ours), _slashed(theirs))
    elif None not in ours_saelens and None not in theirs_saelens:
        _same(sae, source, "SAELens release", _slashed(ours_saelens), _slashed(theirs_saelens))
    else:
        raise SaeError(
            f"labels: whether Neuronpedia's source {source.modelId}/{source.id} was made from the dictionary "
            f"{sae.name!r} cannot be told (ours is published at "
            f"{_slashed(ours) or _slashed(ours_saelens)!r}, theirs at "
            f"{_slashed(theirs) or _slashed(theirs_saelens)!r}): say where yours was published, with repo_id "
            "and folder of the source in labels.neuronpedia.sources"
        )
    if isinstance(source.saelensConfig, dict) and isinstance(width := source.saelensConfig.get("d_sae"), int):
        _same(sae, source, "width", str(sae.width), str(width))
    if layer := re.match(r"(\d+)-", source.id):
        _same(sae, source, "layer", str(sae.layer), layer[1])


def check_feature(sae: PublishedSae, row: FeatureRow | BulkExplanation) -> int:
    """Return the feature's number; SaeError where it is none of the dictionary, or reads another hook."""
    number = int(row.index) if row.index.isdecimal() else -1
    if not 0 <= number < sae.width:
        raise SaeError(
            f"labels: Neuronpedia's source {row.modelId}/{row.layer} has a feature {row.index!r}, but "
            f"{sae.name!r} has {sae.width}: name the source of this dictionary in labels.neuronpedia.sources"
        )
    if isinstance(row, FeatureRow) and row.hookName and (layer := _LAYER.search(row.hookName)):
        site = _SITES.get(row.hookName[layer.end() :], sae.site)
        _same_hook(sae, row, f"{site}/{layer[1]}")
    return number


def _same_hook(sae: PublishedSae, row: FeatureRow, theirs: str) -> None:
    if theirs != f"{sae.site}/{sae.layer}":
        raise SaeError(
            f"labels: Neuronpedia's source {row.modelId}/{row.layer} reads {theirs} ({row.hookName!r}), but "
            f"{sae.name!r} reads {sae.site}/{sae.layer}: name the source of this dictionary"
        )


def _same(sae: PublishedSae, source: SourceRow, what: str, ours: str, theirs: str) -> None:
    if ours != theirs:
        raise SaeError(
            f"labels: Neuronpedia's source {source.modelId}/{source.id} is another dictionary than "
            f"{sae.name!r} ({what}: {theirs!r}, not {ours!r}); its labels would be wrong: name the right "
            "source in labels.neuronpedia.sources"
        )


def _slashed(parts: Sequence[str | None]) -> str:
    return "/".join(part.strip("/") for part in parts if part)
