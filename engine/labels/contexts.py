"""The contexts of a diff that a label may be made of: those of its making half, in the base if it fires."""

from collections.abc import Iterator

import numpy as np

from ft_audit.engine.labels.own_label import text_of
from ft_audit.engine.store import Context, DiffReader, FeatureIndex
from ft_audit.engine.store.feature_index_reader import SIDES
from ft_audit.engine.store.label_split import makes_label
from ft_audit.errors import StoreError

# From each suite and side; about half of them make a label.
NUM_CONTEXTS = 24
WINDOW = 12
NUM_OTHERS = 64


class MakingContexts:
    """A diff's contexts by feature, strongest first, and texts at random to compare them with."""

    def __init__(self, diff: DiffReader) -> None:
        self._index = FeatureIndex(diff)
        self._suites = [
            str(suite["name"]) for suite in diff.manifest.summary["suites"] if suite["role"] != "control"
        ]
        if not diff.index_paths():
            raise StoreError(
                f"diff {diff.manifest.diff_id} has no feature index, so no context can be found: set "
                "`precompute.feature_index: true` and `precompute.keep: features`, and run `ft-audit "
                "precompute` again"
            )

    def of(self, sae: str, feature: int) -> list[Context]:
        """Return the feature's contexts in the base; in the tuned model if it does not fire there."""
        for side in SIDES:
            found = sorted(self._side(sae, feature, side), key=lambda context: -context.peak)
            if found:
                return [context for context in found if makes_label(context.tokens)]
        return []

    def others(self, vocabulary: list[str], seed: int = 0) -> list[str]:
        """Return texts at random, of the same length as contexts, from all suites."""
        generator = np.random.default_rng(seed)
        texts = []
        for suite in self._suites:
            num_tokens = self._index.num_tokens(suite)
            starts = generator.integers(
                0, max(num_tokens - 2 * WINDOW, 1), NUM_OTHERS // len(self._suites) + 1
            )
            for start in sorted(starts.tolist()):
                ids = self._index.token_ids(suite, start, min(start + 2 * WINDOW + 1, num_tokens))
                texts.append(text_of(ids.tolist(), vocabulary))
        return texts

    def _side(self, sae: str, feature: int, side: str) -> Iterator[Context]:
        for suite in self._suites:
            yield from self._index.top_contexts(sae, suite, side, feature, NUM_CONTEXTS, WINDOW)
