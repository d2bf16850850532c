"""Owns the examples beside a published dictionary: on which tokens each feature fires, and what it promotes.

Gemma Scope 2 puts `examples.safetensors` into each folder, hundreds of megabytes: for every feature the
tokens whose logits it raises and lowers most, its firing rate, and the places in a corpus of token ids where
it fires hardest. Only the slices asked for are read. Ids stay ids: whoever holds the model's tokenizer
decodes them, and what comes out is text of strangers.

Legend of shapes: F features, N contexts of a feature, S sequences, L tokens of a sequence, J listed tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ft_audit.errors import SaeError

EXAMPLES_FILE = "examples.safetensors"
# A row a feature; what stands together says something of the same places of a row.
TOGETHER = (
    ("top_tokens", "top_logits"),
    ("bottom_tokens", "bottom_logits"),
    ("activations", "seq_ids", "positions"),
)
PER_FEATURE = tuple(name for names in TOGETHER for name in names)
TENSORS = (*PER_FEATURE, "feature_frequencies", "tokens")


@dataclass(frozen=True, slots=True)
class TokenLogit:
    """A token id and how far the feature's direction moves its logit."""

    token: int
    logit: float


@dataclass(frozen=True, slots=True)
class Context:
    """A window of one sequence of the corpus around the token on which the feature fired."""

    sequence: int
    position: int
    """Of that token in its sequence."""
    ids: tuple[int, ...]
    peak: int
    """Of that token in `ids`."""
    activation: float


@dataclass(frozen=True, slots=True)
class FeatureExamples:
    """What is published of one feature; contexts come strongest first, one a sequence."""

    feature: int
    firing_rate: float
    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]
    contexts: tuple[Context, ...]


@contextmanager
def open_examples(folder: Path) -> Iterator[Examples]:
    """The examples in a dictionary's folder, open while the block runs.

    Raises SaeError where the folder has none, or the file is not of this layout.
    """
    path = folder / EXAMPLES_FILE
    if not path.is_file():
        raise SaeError(
            f"{folder}: holds no {EXAMPLES_FILE}; Gemma Scope 2 publishes one beside each dictionary, "
            f"fetch it with `ft-audit sae info --examples`"
        )
    try:
        with safe_open(path, "pt") as file:
            yield Examples(path, file)
    except (SafetensorError, OSError) as error:
        raise SaeError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error


class Examples:
    """One open file of examples; `open_examples` makes it."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._slices = {name: file.get_slice(name) for name in TENSORS if name in file.keys()}  # noqa: SIM118
        missing = [name for name in TENSORS if name not in self._slices]
        if missing:
            raise SaeError(f"{path}: misses {', '.join(missing)}; fetch it again")
        if [len(self._shape(name)) for name in ("feature_frequencies", "tokens")] != [1, 2]:
            raise SaeError(
                f"{path}: feature_frequencies or tokens are not of their usual shape; fetch it again"
            )
        (self.num_features,) = self._shape("feature_frequencies")
        self.num_sequences, self.sequence_length = self._shape("tokens")
        for names in TOGETHER:
            first = self._shape(names[0])
            for name in names:
                shape = self._shape(name)
                if len(shape) != 2 or shape[0] != self.num_features or shape != first:
                    raise SaeError(
                        f"{path}: {name} has shape {shape}, expected a row for each of {self.num_features} "
                        f"features, as long as those of {names[0]}; fetch it again"
                    )

    def firing_rates(self) -> NDArray[np.float32]:
        """The share of the corpus's tokens on which each feature fires [F]."""
        rates_F: NDArray[np.float32] = self._slices["feature_frequencies"][:].float().numpy()
        return rates_F

    def feature(
        self, feature: int, *, num_contexts: int = 10, before: int = 20, after: int = 10
    ) -> FeatureExamples:
        """What is published of one feature, with up to `before` and `after` tokens around each peak.

        Places that a feature with few firings does not fill are left out. Raises SaeError for a feature that
        the file does not have.
        """
        if not 0 <= feature < self.num_features:
            raise SaeError(f"{self.path}: has features 0 to {self.num_features - 1}, not {feature}")
        return FeatureExamples(
            feature,
            float(self._slices["feature_frequencies"][feature : feature + 1].float()[0]),
            self._listed(feature, "top"),
            self._listed(feature, "bottom"),
            tuple(self._contexts(feature, num_contexts, before, after)),
        )

    def _contexts(self, feature: int, num_contexts: int, before: int, after: int) -> Iterator[Context]:
        activation_N = self._row("activations", feature)
        sequence_N = self._row("seq_ids", feature)
        position_N = self._row("positions", feature)
        seen: set[int] = set()
        for place in np.argsort(-activation_N, kind="stable"):
            sequence, position = int(sequence_N[place]), int(position_N[place])
            filled = activation_N[place] > 0 and 0 <= sequence < self.num_sequences
            if not filled or not 0 <= position < self.sequence_length or sequence in seen:
                continue
            if len(seen) == num_contexts:
                return
            seen.add(sequence)
            start, stop = max(0, position - before), min(self.sequence_length, position + after + 1)
            ids = self._slices["tokens"][sequence : sequence + 1, start:stop][0].tolist()
            yield Context(sequence, position, tuple(ids), position - start, float(activation_N[place]))

    def _listed(self, feature: int, end: str) -> tuple[TokenLogit, ...]:
        token_J, logit_J = self._row(f"{end}_tokens", feature), self._row(f"{end}_logits", feature)
        return tuple(TokenLogit(int(t), float(v)) for t, v in zip(token_J, logit_J, strict=True))

    def _row(self, name: str, feature: int) -> NDArray[np.float64]:
        row: NDArray[np.float64] = self._slices[name][feature : feature + 1][0].double().numpy()
        return row

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slices[name].get_shape())
