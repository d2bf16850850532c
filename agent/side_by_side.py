"""One prompt through both models: what a feature does at every token of it."""

from dataclasses import dataclass

import numpy as np

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.report.numbers import short
from ft_audit.agent.tables import table
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.views import Feature
from ft_audit.engine.store.feature_index_reader import SIDES
from ft_audit.errors import StoreError

TOKEN_CHARACTERS = 24
BAR = 24


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A feature's activations at a prompt's tokens, 0 where it does not fire. `tokens` is untrusted."""

    tokens: tuple[str, ...]
    base: tuple[float, ...]
    tuned: tuple[float, ...]


def side_by_side(evidence: Evidence, feature: Feature, prompt: int) -> SideBySide:
    """What the feature does in a prompt of its suite; StoreError where the diff has no copy by feature."""
    index = evidence.index
    if index is None or not index.holds(feature.sae, feature.suite):
        raise StoreError(
            f"diff {evidence.diff_id} has no copy sorted by feature: set `precompute.feature_index: true` "
            "and `precompute.keep: features`, and run `ft-audit precompute` again"
        )
    start, stop = (index.prompt_start(feature.suite, number) for number in (prompt, prompt + 1))
    found = []
    for side in SIDES:
        fired = index.tokens_of(feature.sae, feature.suite, side, feature.feature)
        activations = np.zeros(stop - start)
        here = fired.prompt_N == prompt
        activations[fired.position_N[here]] = fired.value_N[here]
        found.append(tuple(activations.tolist()))
    tokens = evidence.words(index.token_ids(feature.suite, start, stop).tolist())
    return SideBySide(tokens, *found)


def side_by_side_text(found: SideBySide) -> str:
    """The prompt token by token, with a bar for each model."""
    largest = max((*found.base, *found.tuned), default=0.0) or 1.0
    rows = [
        (reveal(token, TOKEN_CHARACTERS), *(cell for value in pair for cell in _cells(value, largest)))
        for token, *pair in zip(found.tokens, found.base, found.tuned, strict=True)
    ]
    return table(("token", "base", "", "tuned", ""), rows, numbers=(1, 3))


def _cells(value: float, largest: float) -> tuple[str, str]:
    return (short(value), "█" * max(round(BAR * value / largest), 1)) if value else ("", "")
