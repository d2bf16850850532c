"""The contexts that make or try a label: where the feature fires, at all strengths, and where it is silent.

Those that try a label never made one (engine/store/label_split.py). The silent ones are at random, or near
misses: they hold a token on which the feature fires elsewhere, or are where a neighbouring feature fires.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ft_audit.agent.labels.activity import Activity, Place, Snippet
from ft_audit.engine.config import ScoringConfig
from ft_audit.engine.store.label_split import makes_label

# More candidates than wanted, as half of them fall to the making of labels and some are alike.
SPARE = 6
# Draws for each silent context at random, before there are held to be no more.
PATIENCE = 20
# How much of a suite is searched for a token.
SEARCHED_TOKENS = 1 << 20
NUM_NEIGHBORS, CONTEXTS_A_NEIGHBOR = 8, 16


class Snippets(NamedTuple):
    """What tries one label."""

    firing: list[Snippet]
    silent: list[Snippet]


def draw_snippets(
    feature: Activity, neighbors: Sequence[int], vocabulary: Sequence[str], scoring: ScoringConfig
) -> Snippets:
    """The contexts that try one feature's labels, fewer than asked for where there are no more.

    The same ones for the same seed, whatever the label, so that labels can be compared.
    """
    random = np.random.default_rng(scoring.seed)
    firing = _distinct(feature, _firing(feature, scoring.num_firing * SPARE), makes=False)
    firing = [firing[i] for i in _evenly(len(firing), scoring.num_firing)]
    silent = _distinct(feature, _at_random(feature, scoring.num_random, random))
    num_hard = scoring.num_near_miss
    alike = _distinct(feature, _same_token(feature, firing, random, num_hard * SPARE))
    near = _distinct(feature, _neighbors_fire(feature, neighbors))
    # Half of either kind of near miss, and more of one where there is too little of the other.
    hard = [*alike[: max(num_hard // 2, num_hard - len(near))], *near][:num_hard]
    plain = [place for place in silent[: scoring.num_random] if place not in hard]
    return Snippets(
        [feature.snippet(place, vocabulary) for place in firing],
        [feature.snippet(place, vocabulary) for place in plain]
        + [feature.snippet(place, vocabulary, near_miss=True) for place in hard],
    )


def making_snippets(feature: Activity, vocabulary: Sequence[str], num: int) -> list[Snippet]:
    """The contexts that may make one feature's label: half the strongest, half from all strengths."""
    places = _distinct(feature, _firing(feature, num * SPARE), makes=True)
    rest = places[num // 2 :]
    chosen = [*places[: num // 2], *(rest[i] for i in _evenly(len(rest), num - num // 2))]
    return [feature.snippet(place, vocabulary) for place in chosen]


def _firing(feature: Activity, num: int) -> list[Place]:
    """The strongest token of each prompt, from all strengths alike, the strongest first."""
    found: list[tuple[float, Place]] = []
    for suite, tokens in feature.fired.items():
        order_N = np.lexsort((tokens.token_N, -tokens.value_N))
        _, first = np.unique(tokens.prompt_N[order_N], return_index=True)
        for entry in order_N[first]:
            found.append((float(tokens.value_N[entry]), Place(suite, int(tokens.token_N[entry]))))
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    return [found[i][1] for i in _evenly(len(found), num)]


def _at_random(feature: Activity, num: int, random: np.random.Generator) -> Iterator[Place]:
    sizes = {suite: feature.index.num_tokens(suite) for suite in feature.fired}
    edges = np.cumsum(list(sizes.values()))
    found = 0
    for number in random.integers(0, edges[-1], num * PATIENCE).tolist():
        suite = int(np.searchsorted(edges, number, side="right"))
        place = Place(list(sizes)[suite], number - int(edges[suite - 1] if suite else 0))
        if not feature.activations(place).any():
            found += 1
            yield place
        if found >= 2 * num:
            return


def _same_token(
    feature: Activity, firing: Sequence[Place], random: np.random.Generator, num: int
) -> Iterator[Place]:
    """Places that hold a token on which the feature fires elsewhere, though it is silent around them."""
    peaks = {int(feature.index.token_ids(p.suite, p.token, p.token + 1)[0]) for p in firing}
    for suite in feature.fired:
        ids_T = feature.index.token_ids(suite, 0, min(feature.index.num_tokens(suite), SEARCHED_TOKENS))
        candidates = np.flatnonzero(np.isin(ids_T, sorted(peaks)))
        for token in random.permutation(candidates)[:num].tolist():
            place = Place(suite, token)
            if not feature.activations(place).any():
                yield place


def _neighbors_fire(feature: Activity, neighbors: Sequence[int]) -> Iterator[Place]:
    """Places where features of a similar direction fire hardest and this one is silent, in turn."""
    for neighbor in neighbors[:NUM_NEIGHBORS]:
        for suite in feature.fired:
            found = feature.index.top_contexts(
                feature.sae, suite, feature.side, neighbor, CONTEXTS_A_NEIGHBOR, window=0
            )
            for context in found:
                start = feature.index.prompt_start(suite, context.prompt)
                place = Place(suite, start + context.position)
                if not feature.activations(place).any():
                    yield place


def _distinct(
    feature: Activity, places: Iterator[Place] | list[Place], makes: bool | None = None
) -> list[Place]:
    """The places whose texts differ; only those that may make a label, or may not, where that is asked."""
    seen: dict[tuple[int, ...], Place] = {}
    for place in places:
        ids = tuple(feature.ids(place))
        if makes is None or makes_label(ids) == makes:
            seen.setdefault(ids, place)
    return list(seen.values())


def _evenly(num: int, wanted: int) -> list[int]:
    """`wanted` numbers below `num` at even distances, all of them where there are no more."""
    return list(range(num)) if num <= wanted else np.linspace(0, num - 1, wanted).round().astype(int).tolist()
