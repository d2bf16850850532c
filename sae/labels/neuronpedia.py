"""Labels from Neuronpedia's public API over plain HTTP, one by one or many at once, kept on this disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from ft_audit.errors import ServiceError
from ft_audit.sae.labels.http import PoliteHttp
from ft_audit.sae.labels.rows import FeatureRow, SourceRow, parse, parse_features

# Each row comes with an activation at least, so that many at once are slow for the server.
BATCH = 50
ABSENT = b"null\n"  # a feature that the service has nothing of


@dataclass(frozen=True, slots=True)
class Neuronpedia:
    """One source of one model; `offline`, only what is in the cache is read."""

    http: PoliteHttp
    base_url: str
    model: str
    source: str
    cache: Path
    offline: bool = False

    def feature(self, index: int) -> FeatureRow | None:
        """Return one feature with its source, or None where the service has nothing of it."""
        kept = self._folder / "features" / f"{index}.json"
        content = _read(kept)
        if content is None:
            address = self._address("feature", self.model, self.source, str(index))
            if self.offline:
                raise ServiceError(
                    f"{address} is not in the cache {self._folder}: run once without --offline, or give "
                    "labels.neuronpedia.bulk"
                )
            content = self._fetch(kept, address)
        return None if content == ABSENT else self._own(parse(FeatureRow, content, str(kept)), index)

    def source_row(self, probe: Iterable[int]) -> SourceRow:
        """Return what the source was made from, as the first of these features that is there tells.

        Raises ServiceError where none is.
        """
        kept = self._folder / "source.json"
        content = _read(kept)
        if content is not None:
            return parse(SourceRow, content, str(kept))
        for index in probe:
            row = self.feature(index)
            if row is not None and row.source is not None:
                _write(kept, row.source.model_dump_json().encode())
                return row.source
        raise ServiceError(
            f"{self.base_url} has no source {self.source!r} of the model {self.model!r} with these features: "
            "check labels.neuronpedia.sources"
        )

    def features(self, indices: Iterable[int]) -> Iterator[tuple[int, FeatureRow | None]]:
        """Yield each feature's row or None, asking for many at once; what was asked before is not again.

        Offline, features that are not in the cache are left out.
        """
        batch: list[int] = []
        for index in indices:
            # The single question's rows are richer, and answer as well.
            kept = [_read(self._folder / kind / f"{index}.json") for kind in ("features", "batch")]
            content = next((found for found in kept if found is not None), None)
            if content is not None:
                yield (
                    index,
                    None if content == ABSENT else self._own(parse(FeatureRow, content, "cache"), index),
                )
                continue
            if not self.offline:
                batch.append(index)
            if len(batch) == BATCH:
                yield from self._batch(batch)
                batch = []
        yield from self._batch(batch) if batch else ()

    def _batch(self, indices: list[int]) -> Iterator[tuple[int, FeatureRow | None]]:
        address = self._address("features")
        # maxActsToReturn 0 means all of them.
        asked = [
            {"modelId": self.model, "layer": self.source, "index": i, "maxActsToReturn": 1} for i in indices
        ]
        content = self.http.post_json(address, json.dumps(asked).encode())
        rows = {row.index: row for row in parse_features(content or b"[]", address)}
        for index in indices:
            row = rows.get(str(index))
            kept = self._folder / "batch" / f"{index}.json"
            _write(kept, ABSENT if row is None else row.model_dump_json().encode())
            yield index, None if row is None else self._own(row, index)

    def _fetch(self, kept: Path, address: str) -> bytes:
        content = self.http.get(address)
        if content is None or content.strip() == b"null":
            content = ABSENT
        else:
            # Without what we do not read: an answer is mostly activations.
            content = parse(FeatureRow, content, address).model_dump_json().encode()
        _write(kept, content)
        return content

    def _own(self, row: FeatureRow, index: int) -> FeatureRow:
        if (row.modelId, row.layer, row.index) != (self.model, self.source, str(index)):
            raise ServiceError(
                f"{self.base_url} answers for {row.modelId}/{row.layer}/{row.index} when asked for "
                f"{self.model}/{self.source}/{index}: check the address"
            )
        return row

    def _address(self, *parts: str) -> str:
        return "/".join((self.base_url.rstrip("/"), "api", *(quote(part, safe="") for part in parts)))

    @property
    def _folder(self) -> Path:
        parts = (urlsplit(self.base_url).netloc, self.model, self.source)
        return self.cache.joinpath(*(quote(part, safe=" ") or "-" for part in parts))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(content)
    partial.replace(path)
