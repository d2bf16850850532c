"""`labels fetch`: labels that others have published, for the very dictionaries of a diff."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ft_audit.engine.config import AuditConfig, NeuronpediaConfig, NeuronpediaSourceConfig, SaeConfig
from ft_audit.engine.labels.open_labels import ALL, LabelJob, open_job
from ft_audit.engine.models.cache import cache_dir
from ft_audit.engine.store import DecoderNeighbor, DictionaryLabels, LabelText
from ft_audit.errors import ConfigError
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.labels.bulk import BulkLabels
from ft_audit.sae.labels.http import PoliteHttp
from ft_audit.sae.labels.neuronpedia import Neuronpedia
from ft_audit.sae.labels.published import (
    Place,
    PublishedSae,
    check_feature,
    check_source,
    published_place,
)
from ft_audit.sae.labels.rows import ExplanationRow

SOURCE = "neuronpedia"
KEY_VARIABLE = "NEURONPEDIA_API_KEY"
# Labels between two commits.
BLOCK = 1024
# Features of which one at least is asked alone, to learn what a source was made from.
NUM_PROBES = 8
# So many neighbours of a feature without a label are asked for theirs, as `nearest_explained_neighbors` looks
# at.
SEARCH_K, MIN_COS = 200, 0.15


def run_labels_fetch(
    config: AuditConfig,
    diff: str | None = None,
    features: str | None = None,
    *,
    offline: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Store the labels that Neuronpedia has of the features asked for, and return what was found.

    Each source is first shown to have been made from the very dictionary. Features without a label get
    those of their decoder neighbours fetched, where `labels build` has stored which those are. From a
    bulk copy the whole source is stored.

    Raises:
        ConfigError, SaeError, ServiceError, StoreError: nothing to fetch from, a source of another
            dictionary, or a service that does not answer.
    """
    wanted = config.labels.neuronpedia
    if wanted is None or not wanted.sources:
        raise ConfigError(
            "labels.neuronpedia names no source: write `labels: {neuronpedia: {sources: [{sae: NAME, model: "
            "gemma-3-1b-it, source: 22-gemmascope-2-res-16k}]}}`"
        )
    job = open_job(config, diff, features)
    sources = {source.sae: source for source in wanted.sources}
    http = PoliteHttp(wanted.requests_per_second, os.environ.get(KEY_VARIABLE))
    done = {}
    for reference, sae in job.dictionaries(list(sources)):
        source = sources.pop(sae.spec.name)
        published = published_sae(config, reference, source, sae)
        labels = job.store.labels(sae.spec.sha256)
        if wanted.bulk is not None:
            bulk = BulkLabels(wanted.bulk, source.model, source.source, _cache(wanted), http, offline)
            done[sae.spec.name] = _fetch_bulk(bulk, published, labels, progress)
        else:
            api = Neuronpedia(http, wanted.base_url, source.model, source.source, _cache(wanted), offline)
            done[sae.spec.name] = _fetch(job, api, published, sae, labels, progress)
    if sources:
        raise ConfigError(
            f"labels.neuronpedia.sources names the dictionary {min(sources)!r}, which `hooks` does not: "
            f"it has {', '.join(done) or 'none of those named'}"
        )
    return {
        "diff": job.diff_id,
        "store": job.store.location,
        "requests": http.num_requests,
        "dictionaries": done,
    }


def published_sae(
    config: AuditConfig, reference: SaeConfig, source: NeuronpediaSourceConfig, sae: JumpReluSae
) -> PublishedSae:
    """Return a loaded dictionary and where it is published."""
    stated = Place(source.repo_id, source.folder)
    place = published_place(reference.reference, config.base_dir, stated)
    return PublishedSae(sae.spec.name, sae.spec.layer, sae.spec.site, sae.spec.width, place)


def _cache(wanted: NeuronpediaConfig) -> Path:
    return Path(wanted.cache).expanduser() if wanted.cache else cache_dir() / SOURCE


def _fetch(
    job: LabelJob,
    api: Neuronpedia,
    published: PublishedSae,
    sae: JumpReluSae,
    labels: DictionaryLabels,
    progress: bool,
) -> dict[str, int]:
    asked = job.features(sae.spec.name, sae.spec.width)
    check_source(published, api.source_row([*asked[:NUM_PROBES], *range(NUM_PROBES)]))
    counts = _add(api, published, labels, asked, f"labels of {published.name}", progress)
    bare = [feature for feature in asked if not _has_label(labels, feature)]
    if job.asked != ALL and bare:
        neighbors = _add(api, published, labels, _neighbors(labels, bare), "labels of neighbours", progress)
        counts |= {f"neighbor_{name}": number for name, number in neighbors.items()}
    return counts


def _add(
    api: Neuronpedia,
    published: PublishedSae,
    labels: DictionaryLabels,
    features: list[int],
    title: str,
    progress: bool,
) -> dict[str, int]:
    """Store what the service has of the features; what the store has already is not asked again."""
    todo = [feature for feature in features if not _has_label(labels, feature)]
    counts = {"features": len(features), "asked": len(todo), "answered": 0, "labels": 0}
    made_from = f"{api.model}/{api.source}"
    block: list[LabelText] = []
    with tqdm(total=len(todo), desc=title, disable=not progress, file=sys.stderr) as bar:
        for feature, row in api.features(todo):
            bar.update()
            counts["answered"] += 1
            if row is not None:
                check_feature(published, row)
                block += _texts(feature, row.explanations, made_from)
            if len(block) >= BLOCK:
                labels.add(block)
                counts["labels"] += len(block)
                block = []
    labels.add(block)
    counts["labels"] += len(block)
    return counts


def _fetch_bulk(
    bulk: BulkLabels, published: PublishedSae, labels: DictionaryLabels, progress: bool
) -> dict[str, int]:
    """Store every label of the source that is not stored yet."""
    check_source(published, bulk.source_row())
    made_from, seen = f"{bulk.model}/{bulk.source}", set[int]()
    found: list[LabelText] = []
    rows = tqdm(
        bulk.explanations(), desc=f"labels of {published.name}", disable=not progress, file=sys.stderr
    )
    for row in rows:
        feature = check_feature(published, row)
        seen.add(feature)
        if not _has_label(labels, feature):
            found += _texts(feature, [row], made_from)
    labels.add(found)
    return {"features": len(seen), "labels": len(found)}


def _texts(feature: int, rows: Iterable[ExplanationRow], made_from: str) -> Iterator[LabelText]:
    for row in rows:
        if row.description.strip():
            yield LabelText(feature, SOURCE, row.author, made_from, row.description.strip())


def _has_label(labels: DictionaryLabels, feature: int) -> bool:
    return any(text.source == SOURCE for text in labels.of(LabelText, feature))


def _neighbors(labels: DictionaryLabels, features: list[int]) -> list[int]:
    found: dict[int, None] = {}
    for feature in features:
        near = sorted(labels.of(DecoderNeighbor, feature), key=lambda row: -row.cosine)
        found |= dict.fromkeys(row.neighbor for row in near[:SEARCH_K] if row.cosine >= MIN_COS)
    return list(found)
