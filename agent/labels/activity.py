"""Where one feature fires in a diff, and any place of its suites as a context of that feature.

Legend: N tokens of a suite on which the feature fires.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store import FeatureIndex
from ft_audit.engine.store.feature_index_reader import SIDES, FeatureTokens

WINDOW = 12


class Place(NamedTuple):
    """A token, by its number in a suite."""

    suite: str
    token: int


@dataclass(frozen=True, slots=True)
class Snippet:
    """One context as text, which is untrusted, and how strongly the feature fires on each of its tokens."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    near_miss: bool = False
    """Whether it is silent and was chosen to be hard."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)


@dataclass(frozen=True, slots=True)
class Activity:
    """One feature in one model."""

    index: FeatureIndex
    sae: str
    side: str
    fired: dict[str, FeatureTokens]

    @property
    def num_tokens(self) -> int:
        """On how many tokens it fires."""
        return sum(len(found.token_N) for found in self.fired.values())

    def window(self, place: Place) -> tuple[int, int]:
        """The tokens of the place's own prompt that are at most WINDOW from it."""
        start, end = self.index.prompt_bounds(place.suite, place.token)
        return max(start, place.token - WINDOW), min(end, place.token + WINDOW + 1)

    def ids(self, place: Place) -> list[int]:
        """The ids of the tokens of the place's window."""
        found: list[int] = self.index.token_ids(place.suite, *self.window(place)).tolist()
        return found

    def activations(self, place: Place) -> NDArray[np.float32]:
        """The feature's activation on each token of the window, 0 where it is silent."""
        (low, high), found = self.window(place), self.fired[place.suite]
        inside = slice(*np.searchsorted(found.token_N, (low, high)))
        values = np.zeros(high - low, dtype=np.float32)
        values[found.token_N[inside] - low] = found.value_N[inside]
        return values

    def snippet(self, place: Place, vocabulary: Sequence[str], *, near_miss: bool = False) -> Snippet:
        """The place's window as a text."""
        tokens = tuple(vocabulary[i] if i < len(vocabulary) else "" for i in self.ids(place))
        return Snippet(tokens, tuple(self.activations(place).tolist()), near_miss)


def activity(index: FeatureIndex, sae: str, suites: Sequence[str], feature: int) -> Activity:
    """Where a feature fires in the base; in the tuned model where it does not fire in the base at all."""
    for side in SIDES:
        fired = {suite: index.tokens_of(sae, suite, side, feature) for suite in suites}
        found = Activity(index, sae, side, fired)
        if found.num_tokens:
            break
    return found
