"""What is known of a dictionary's features beside any diff: labels, their reliability, tokens, neighbours.

    labels/<sha256 of the dictionary>/<kind>/      rows of one kind, in files that only grow (label_parts.py)
    labels/vocabularies/<sha256 of the base>/      what each token id of a tokenizer stands for

A label belongs to a dictionary and not to a diff: what was fetched or paid for once serves every candidate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from ft_audit.engine.store.canonical import content_id
from ft_audit.engine.store.label_parts import Column, append_part, part_keys, read_part
from ft_audit.engine.store.place import Place
from ft_audit.errors import StoreError

LABELS = "labels"
VOCABULARIES = f"{LABELS}/vocabularies"
# No label worth reading is longer, and whoever publishes one decides how long it is.
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class LabelText:
    """What somebody says a feature stands for; the text is untrusted."""

    KIND: ClassVar[str] = "texts"

    feature: int
    source: str
    """`neuronpedia`, `contexts` (made of its own contexts, without any model) or `described` (by a model)."""
    author: str
    """The model and method that wrote it."""
    made_from: str
    """Where it was published, or the diff whose contexts it was made of."""
    text: str

    @property
    def label_id(self) -> str:
        """The hash of the label as it stands: a changed text is another label, and unscored."""
        return content_id({"feature": self.feature, "source": self.source, "text": self.text})

    @property
    def key(self) -> tuple[Any, ...]:
        return self.feature, self.source, self.author


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well one label told contexts on which its feature fires from others; 0.5 is chance."""

    KIND: ClassVar[str] = "scores"

    feature: int
    label_id: str
    method: str
    """`detection`, `fuzzing` (both: balanced accuracy of a judge) or `lexical` (area under the ROC curve)."""
    judge: str
    """The model that judged; empty where none did."""
    score: float
    low: float
    high: float
    interval: str
    """The name of the 95 % interval."""
    num_firing: int
    num_silent: int
    num_near_miss: int
    """How many of the silent ones were chosen to be hard."""
    num_unanswered: int
    """Contexts that the judge was shown and gave no valid answer for; they count in neither number above."""
    made_from: str
    """The diff whose contexts were shown."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.feature, self.label_id, self.method, self.judge


@dataclass(frozen=True, slots=True)
class TokenEffect:
    """How much one unit of a feature's activation moves a token's logit, by the unembedding alone."""

    KIND: ClassVar[str] = "tokens"

    feature: int
    token: str
    effect: float
    base_sha256: str

    @property
    def key(self) -> tuple[Any, ...]:
        return self.feature, self.token, self.base_sha256


@dataclass(frozen=True, slots=True)
class DecoderNeighbor:
    """Another feature whose decoder direction points the same way."""

    KIND: ClassVar[str] = "neighbors"

    feature: int
    neighbor: int
    cosine: float

    @property
    def key(self) -> tuple[Any, ...]:
        return self.feature, self.neighbor


Row = TypeVar("Row", LabelText, LabelScore, TokenEffect, DecoderNeighbor)
KINDS = (LabelText, LabelScore, TokenEffect, DecoderNeighbor)


class DictionaryLabels:
    """All rows about one dictionary; reads a kind whole when it is first asked for, and keeps it."""

    def __init__(self, place: Place, sae_sha256: str) -> None:
        self._place, self._folder = place, f"{LABELS}/{sae_sha256}"
        self._rows: dict[type, dict[int, list[Any]]] = {}

    def of(self, kind: type[Row], feature: int) -> list[Row]:
        """Return the feature's rows in the order they were added; of equal keys the last one stands."""
        found: list[Row] = self._all(kind).get(feature, [])
        return list({row.key: row for row in found}.values())

    def features(self, kind: type[Row]) -> set[int]:
        """Return the features that have any row of the kind."""
        return set(self._all(kind))

    def add(self, rows: Sequence[Row]) -> None:
        """Store rows of one kind; they are safe when this returns. Nothing is stored for no rows."""
        if not rows:
            return
        kind = type(rows[0])
        columns = {
            field.name: _column(field.type, [getattr(row, field.name) for row in rows])
            for field in fields(kind)
        }
        append_part(self._place, f"{self._folder}/{kind.KIND}", columns)
        if kind in self._rows:
            _group(self._rows[kind], rows)

    def damaged(self) -> list[str]:
        """Return what is wrong with the dictionary's files, having read all of them."""
        problems = []
        for kind in KINDS:
            for key in part_keys(self._place, f"{self._folder}/{kind.KIND}"):
                try:
                    read_part(self._place, key, _names(kind))
                except StoreError as error:
                    problems.append(str(error))
        return problems

    def _all(self, kind: type[Row]) -> dict[int, list[Row]]:
        if kind not in self._rows:
            found: dict[int, list[Row]] = {}
            names = _names(kind)
            for key in part_keys(self._place, f"{self._folder}/{kind.KIND}"):
                table = read_part(self._place, key, names)
                columns = [table.values(name) for name in names]
                _group(found, (kind(*values) for values in zip(*columns, strict=True)))
            self._rows[kind] = found
        return self._rows[kind]


def put_vocabulary(place: Place, base_sha256: str, tokens: Sequence[str]) -> None:
    """Store what each token id stands for, in the order of the ids."""
    append_part(place, f"{VOCABULARIES}/{base_sha256}", {"token": list(tokens)})


def read_vocabulary(place: Place, base_sha256: str) -> list[str] | None:
    """Return what each token id of the base's tokenizer stands for; None when that was never stored."""
    keys = part_keys(place, f"{VOCABULARIES}/{base_sha256}")
    return [str(token) for token in read_part(place, keys[-1], ("token",)).values("token")] if keys else None


def labelled_dictionaries(place: Place) -> list[str]:
    """Return the sha256 of every dictionary that the store knows anything of, sorted."""
    return [name for name in place.folders(LABELS) if f"{LABELS}/{name}" != VOCABULARIES]


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def _column(kind: Any, values: list[Any]) -> Column:
    if kind is str:
        # Half a surrogate pair, which JSON may hold, has no place in a file.
        return [text[:MAX_TEXT].encode("utf-8", "replace").decode() for text in values]
    return np.array(values, dtype=np.int64) if kind is int else np.array(values, dtype=np.float64)


def _group(found: dict[int, list[Row]], rows: Iterable[Row]) -> None:
    for row in rows:
        found.setdefault(row.feature, []).append(row)
