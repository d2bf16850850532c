"""Draws the sparse features of prompts as real ones fire: prompt by prompt, and alike in base and tuned.

Legend: F features, P prompts, T tokens, N non-zeros.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ft_audit.benchmarks.storing.firing import TOKEN_Q, Firing, rates_within, stretched_rates
from ft_audit.engine.store import SegmentData, encode_bf16

TABLE = 1 << 12
MOVED_FEATURES = 64
MOVED_FACTOR = 1.5  # rate and activation of the features that the tuned side moves
REDRAWN = 0.05  # share of the draws that differ between the sides
VOCABULARY = 49_152


class Drawer(NamedTuple):
    """What the compiled loop reads."""

    rank_active_F: NDArray[np.float64]  # by rank: the chance that a prompt has the feature active, descending
    rank_feature_F: NDArray[np.int32]  # by rank: the feature's number
    within_F: NDArray[np.float64]  # by feature: the chance that a token of such a prompt fires it
    scale_F: NDArray[np.float32]  # by feature: its typical activation
    moved_F: NDArray[np.bool_]
    factor: NDArray[np.float64]  # L0 of a token over the mean, over TABLE quantiles
    spread: NDArray[np.float32]  # activation over the feature's typical one, over TABLE quantiles


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts of a synthetic suite in segments of like lengths, as length-sorted batches leave them."""

    drawer: Drawer
    num_features: int
    l0: float
    length_P: NDArray[np.int64]
    segments: tuple[NDArray[np.int64], ...]  # suite indices of each segment's prompts
    counted_share: float

    @property
    def num_tokens(self) -> int:
        return int(self.length_P.sum())

    def segment(self, number: int, side: str, sae: str) -> SegmentData:
        """One segment of the base's or the tuned model's run; the same bytes whoever draws it."""
        prompt_P = self.segments[number]
        indptr_P1 = np.concatenate([[0], np.cumsum(self.length_P[prompt_P])]).astype(np.int64)
        num_tokens = int(indptr_P1[-1])
        rng = np.random.default_rng([number, 1])
        mask_T = rng.random(num_tokens) < self.counted_share
        indptr_T1 = np.zeros(num_tokens + 1, dtype=np.int64)
        capacity, needed = 0, 256 + int(1.3 * self.l0 * num_tokens)
        while needed > capacity:
            capacity = needed
            index_N, value_N = np.empty(capacity, np.int32), np.empty(capacity, np.float32)
            needed = _draw(
                self.drawer, prompt_P, indptr_P1, mask_T, side == "tuned", indptr_T1, index_N, value_N
            )
        return SegmentData(
            prompt_P=prompt_P,
            prompt_indptr_P1=indptr_P1,
            token_T=rng.zipf(1.2, num_tokens).clip(max=VOCABULARY - 1).astype(np.int32),
            role_T=np.zeros(num_tokens, dtype=np.uint8),
            mask_T=mask_T,
            features={sae: (indptr_T1, index_N[:needed], encode_bf16(value_N[:needed]))},
        )


def draw_suite(
    firing: Firing, num_tokens: int, num_features: int, l0: float, tokens_per_segment: int, seed: int = 0
) -> Suite:
    """A suite of about `num_tokens` tokens; `l0` features of the dictionary fire on a counted token."""
    rng = np.random.default_rng(seed)
    mean_length = float(np.trapezoid(firing.prompt_tokens_Q, TOKEN_Q))
    drawn = np.interp(rng.random(max(1, round(num_tokens / mean_length))), TOKEN_Q, firing.prompt_tokens_Q)
    length_P = np.maximum(drawn.round().astype(np.int64), 1)
    order_P = np.argsort(length_P, kind="stable")
    cuts = np.searchsorted(
        np.cumsum(length_P[order_P]), np.arange(tokens_per_segment, length_P.sum(), tokens_per_segment)
    )
    segments = tuple(part for part in np.split(order_P, cuts) if len(part))
    drawer = _drawer(firing, num_features, l0, rng)
    return Suite(drawer, num_features, l0, length_P, segments, firing.counted_share)


def _drawer(firing: Firing, num_features: int, l0: float, rng: np.random.Generator) -> Drawer:
    rate_F = stretched_rates(firing, num_features, l0)
    rank_within_F = rates_within(firing, rate_F)
    rank_active_F = rate_F / rank_within_F
    by_active = np.argsort(-rank_active_F, kind="stable")
    feature_F = rng.permutation(num_features).astype(np.int32)
    within_F = np.empty(num_features)
    within_F[feature_F] = rank_within_F
    scale_F = np.exp(firing.log_value_mean + firing.log_value_between * rng.normal(size=num_features))
    moved_F = np.zeros(num_features, dtype=np.bool_)
    # Among the more frequent ones: what fires in a handful of prompts passes no test.
    moved_F[rng.choice(feature_F[: max(num_features // 8, 1)], min(MOVED_FEATURES, num_features // 8))] = True
    factor = np.interp((np.arange(TABLE) + 0.5) / TABLE, TOKEN_Q, firing.l0_factor_Q)
    spread = np.exp(firing.log_value_within * np.sort(rng.normal(size=TABLE)))
    return Drawer(
        rank_active_F[by_active],
        feature_F[by_active],
        within_F,
        scale_F.astype(np.float32),
        moved_F,
        factor / factor.mean(),
        spread.astype(np.float32),
    )


@njit(cache=True, nogil=True)
def _draw(
    drawer: Drawer,
    prompt_P: NDArray[np.int64],
    indptr_P1: NDArray[np.int64],
    mask_T: NDArray[np.bool_],
    tuned: bool,
    indptr_T1: NDArray[np.int64],
    index_N: NDArray[np.int32],
    value_N: NDArray[np.float32],
) -> int:
    """Fill the rows; returns how many entries there are, of which only the first `len(index_N)` are kept.

    Both sides draw the same active features for a prompt, and the same tokens but for some drawn again.
    """
    capacity, n = len(index_N), 0
    active = np.empty(len(drawer.within_F), dtype=np.int32)
    own = np.empty(1, dtype=np.uint64)
    shared = np.empty(1, dtype=np.uint64)
    for p in range(len(prompt_P)):
        shared[0] = np.uint64(prompt_P[p] + 1) * np.uint64(0xD1342543DE82EF95)
        own[0] = shared[0] ^ np.uint64(0xA5A5A5A5A5A5A5A5 if tuned else 0x5A5A5A5A5A5A5A5A)
        num_active = _draw_active(drawer, shared, active)
        chosen = active[:num_active]
        chosen.sort()
        for t in range(indptr_P1[p], indptr_P1[p + 1]):
            factor = drawer.factor[int(_uniform(shared) * TABLE)]
            if mask_T[t]:
                for f in chosen:
                    moved = tuned and drawer.moved_F[f]
                    u = _uniform(shared)
                    if _uniform(own) < REDRAWN:
                        u = _uniform(own)
                    if u < drawer.within_F[f] * factor * (MOVED_FACTOR if moved else 1.0):
                        if n < capacity:
                            value = drawer.scale_F[f] * drawer.spread[int(_uniform(own) * TABLE)]
                            index_N[n] = f
                            value_N[n] = value * np.float32(MOVED_FACTOR) if moved else value
                        n += 1
            indptr_T1[t + 1] = n
    return n


@njit(cache=True, nogil=True)
def _draw_active(drawer: Drawer, state: NDArray[np.uint64], active: NDArray[np.int32]) -> int:
    """The prompt's active features: skips along falling chances (Miller and Hagberg 2011), in O(active)."""
    chance_F = drawer.rank_active_F
    rank, num_active = 0, 0
    chance = chance_F[0]
    while rank < len(chance_F):
        if chance < 1.0:
            rank += int(min(math.log(1.0 - _uniform(state)) / math.log(1.0 - chance), 1e9))
        if rank < len(chance_F):
            if _uniform(state) * chance < chance_F[rank]:
                active[num_active] = drawer.rank_feature_F[rank]
                num_active += 1
            chance = chance_F[rank]
            rank += 1
    return num_active


@njit(cache=True, nogil=True)
def _uniform(state: NDArray[np.uint64]) -> float:
    """A uniform number in [0, 1) from splitmix64 (Steele, Lea and Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / (1 << 53))
