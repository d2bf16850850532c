"""Labels from Neuronpedia's public data set: a whole source at once, from a folder or an address.

    <root>/v1/<model>/<source>/source.jsonl
    <root>/v1/<model>/<source>/explanations/batch-<n>.jsonl.gz

Explanations are ordered by their feature's number as text, so that all files are read for any of them.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urlsplit

from ft_audit.errors import ServiceError
from ft_audit.sae.labels.http import PoliteHttp
from ft_audit.sae.labels.rows import BulkExplanation, SourceRow, parse

PUBLIC = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
# An explanation with its embedding takes a few thousand characters.
MAX_LINE = 1 << 20
MAX_LINES = 1 << 16  # of one file, which is published with 1,024


@dataclass(frozen=True, slots=True)
class BulkLabels:
    """One source in a copy of the data set; from an address, its files are fetched into `cache` once."""

    root: str
    model: str
    source: str
    cache: Path
    http: PoliteHttp
    offline: bool = False

    def source_row(self) -> SourceRow:
        """Return what the source was made from; ServiceError where the data set does not say."""
        content = self._file("source.jsonl")
        lines = (content or b"").splitlines()
        if not lines:
            raise ServiceError(
                f"{self._where('source.jsonl')}: there is no such file, so nothing tells which dictionary "
                "these labels are for: check labels.neuronpedia.bulk and its sources"
            )
        return parse(SourceRow, lines[0], self._where("source.jsonl"))

    def explanations(self) -> Iterator[BulkExplanation]:
        """Yield every explanation of the source, file by file."""
        number = 0
        while (content := self._file(f"explanations/batch-{number}.jsonl.gz")) is not None:
            where = self._where(f"explanations/batch-{number}.jsonl.gz")
            for line in _lines(content, where):
                row = parse(BulkExplanation, line, where)
                if (row.modelId, row.layer) != (self.model, self.source):
                    raise ServiceError(
                        f"{where} holds rows of {row.modelId}/{row.layer}: fetch the file again"
                    )
                yield row
            number += 1
        if number == 0:
            raise ServiceError(
                f"{self._where('explanations/batch-0.jsonl.gz')}: there is no such file: check "
                "labels.neuronpedia.bulk and its sources"
            )

    def _file(self, name: str) -> bytes | None:
        inner = "/".join(("v1", quote(self.model, safe=""), quote(self.source, safe=""), name))
        if not self.root.startswith(("https://", "http://")):
            path = Path(self.root, inner)
            return path.read_bytes() if path.is_file() else None
        kept = self.cache / "bulk" / urlsplit(self.root).netloc / inner
        if kept.is_file():
            return kept.read_bytes()
        if self.offline:
            return None
        # An object store that lists nothing for strangers says "forbidden" of what is not there.
        content = self.http.get(f"{self.root.rstrip('/')}/{inner}", absent=(403, 404))
        if content is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
            partial.write_bytes(content)
            partial.replace(kept)
        return content

    def _where(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/v1/{self.model}/{self.source}/{name}"


def _lines(content: bytes, where: str) -> Iterator[bytes]:
    """The lines of a gzip file, which is unpacked no further than such a file can reach."""
    try:
        with gzip.open(BytesIO(content)) as file:
            for _ in range(MAX_LINES):
                line = file.readline(MAX_LINE)
                if not line:
                    return
                if len(line) == MAX_LINE:
                    raise ServiceError(f"{where} has a line longer than {MAX_LINE} bytes: fetch it again")
                if line.strip():
                    yield line
            raise ServiceError(f"{where} has more than {MAX_LINES} lines: fetch it again")
    except (OSError, EOFError, zlib.error) as error:
        raise ServiceError(f"{where} is no gzip file that can be read ({error}): fetch it again") from None
