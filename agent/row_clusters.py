"""Sorts texts into clusters of similar ones: hashed character n-grams, TF-IDF, spherical k-means.

The same texts give the same clusters: the draw that begins them is seeded. Legend: R texts, G n-grams of
all of them, B buckets, K clusters, S texts of a sample.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

GRAM = 5
NUM_BUCKETS = 512
BLOCK = 4_096
MAX_CLUSTERS, ROWS_A_CLUSTER = 8, 6
NUM_ROUNDS, MAX_SAMPLE = 12, 4_096
SEED = 20_261
# Multiplies the hash of one byte into the next: an odd number with bits all over (Knuth's).
MIX = np.uint32(2_654_435_761)


def text_vectors(texts: Sequence[str]) -> FloatArray:
    """Return a unit vector for each text [R, B]; what all of them share weighs nothing."""
    count_RB = np.zeros((len(texts), NUM_BUCKETS), dtype=np.float32)
    for start in range(0, len(texts), BLOCK):
        count_RB[start : start + BLOCK] = _counts(texts[start : start + BLOCK])
    rarity_B = np.log(len(texts) / np.maximum((count_RB > 0).sum(0), 1)).astype(np.float32)
    np.log1p(count_RB, out=count_RB)
    count_RB *= rarity_B
    length_R1 = np.linalg.norm(count_RB, axis=1, keepdims=True)
    count_RB /= np.maximum(length_R1, np.finfo(np.float32).tiny)
    return count_RB


def cluster(vector_RB: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Return each text's cluster [R], the largest being 0, and how near its centre the text is [R]."""
    # Of many texts, a sample spread evenly says where the centres are.
    sample_SB = vector_RB[:: max(len(vector_RB) // MAX_SAMPLE, 1)]
    centre_KB = _beginning(sample_SB, int(np.clip(len(vector_RB) // ROWS_A_CLUSTER, 1, MAX_CLUSTERS)))
    chosen_S = np.full(len(sample_SB), -1)
    for _ in range(NUM_ROUNDS):
        again_S = _nearness(sample_SB, centre_KB).argmax(1)
        if np.array_equal(again_S, chosen_S):
            break
        chosen_S = again_S
        for k in range(len(centre_KB)):
            mean_B = sample_SB[chosen_S == k].sum(0)
            norm = np.linalg.norm(mean_B)
            if norm:
                centre_KB[k] = mean_B / norm
    nearness_RK = _nearness(vector_RB, centre_KB)
    chosen_R = nearness_RK.argmax(1)
    sizes_K = np.bincount(chosen_R, minlength=len(centre_KB))
    rank_K = np.empty(len(sizes_K), dtype=np.int64)
    rank_K[np.argsort(-sizes_K, kind="stable")] = np.arange(len(sizes_K))
    return rank_K[chosen_R], nearness_RK[np.arange(len(vector_RB)), chosen_R]


def _nearness(vector_RB: FloatArray, centre_KB: FloatArray) -> FloatArray:
    # Rounded, so that another order of summing gives no other clusters.
    return np.round(vector_RB @ centre_KB.T, 5)


def _counts(texts: Sequence[str]) -> FloatArray:
    """Count each text's n-grams by bucket, all texts at once over one array of bytes."""
    encoded = [" ".join(text.casefold().split()).encode() for text in texts]
    length_R = np.array([len(one) for one in encoded])
    byte_G = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.uint32)
    if len(byte_G) < GRAM:
        return np.zeros((len(texts), NUM_BUCKETS), dtype=np.float32)
    num = len(byte_G) - GRAM + 1
    hash_G = np.zeros(num, dtype=np.uint32)
    for place in range(GRAM):
        hash_G = (hash_G ^ byte_G[place : place + num]) * MIX
        hash_G ^= hash_G >> np.uint32(15)
    row_G = np.repeat(np.arange(len(texts)), length_R)
    # An n-gram across the border of two texts is of neither.
    inside_G = row_G[:num] == row_G[GRAM - 1 :]
    key_G = row_G[:num][inside_G] * NUM_BUCKETS + (hash_G[inside_G] % NUM_BUCKETS)
    return np.bincount(key_G, minlength=len(texts) * NUM_BUCKETS).reshape(len(texts), -1).astype(np.float32)


def _beginning(vector_RB: FloatArray, num_clusters: int) -> FloatArray:
    """Draw texts that lie far apart for centres (k-means++, Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(SEED)
    chosen = [int(rng.integers(len(vector_RB)))]
    far_R = np.ones(len(vector_RB))
    for _ in range(num_clusters - 1):
        apart_R = np.round(1.0 - vector_RB @ vector_RB[chosen[-1]], 5)
        far_R = np.minimum(far_R, np.maximum(apart_R, 0.0))
        total = far_R.sum()
        if not total:
            break
        chosen.append(int(np.searchsorted(np.cumsum(far_R), rng.random() * total)))
    return vector_RB[np.minimum(chosen, len(vector_RB) - 1)].copy()
