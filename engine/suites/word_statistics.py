"""How likely a sequence of words is by the other prompts' own words, with what is in question left out."""

# Shapes: N n-grams of one order, H contexts, K units of a path.

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BITS = 21  # three ids of 21 bits fill an int64 key; the vocabulary of a bounded sample stays below 2^21
_LOW = {1: (1 << _BITS) - 1, 2: (1 << 2 * _BITS) - 1}

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Order:
    """The n-grams of one order: sorted keys with counts, and per context its total and distinct followers."""

    key_N: Ids
    count_N: Ids
    context_H: Ids
    total_H: Ids
    followers_H: Ids


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """Trigram counts over padded sequences; id 0 is the padding before the first word."""

    unigrams: _Order
    bigrams: _Order
    trigrams: _Order
    num_words: int
    vocabulary: int

    @classmethod
    def count(cls, sequences: Iterable[Ids], vocabulary: int) -> "WordStatistics":
        """Count the sequences; ids lie in [1, vocabulary), and any other id is an unseen word later."""
        assert vocabulary < 1 << _BITS, f"{vocabulary} words do not fit the keys; sample fewer sequences"
        keys = [_trigram_keys(sequence) for sequence in sequences]
        key_T = np.concatenate(keys) if keys else np.zeros(0, np.int64)
        return cls(
            unigrams=_order(key_T & _LOW[1]),
            bigrams=_order(key_T & _LOW[2]),
            trigrams=_order(key_T),
            num_words=len(key_T),
            vocabulary=vocabulary,
        )

    def bits(self, path_K: Ids, left_out: int) -> NDArray[np.float64]:
        """Return -log2 P(word | two words before), per word, after removing `left_out` copies of the path.

        Interpolated Witten-Bell smoothing (method C of Witten and Bell, 1991; equations 13 to 15 of Chen and
        Goodman, "An empirical study of smoothing techniques for language modeling", 1999): an order whose
        context was seen c times with t distinct followers gives P = (count + t * P_lower) / (c + t). The
        copies left out are the rows under test, so that a phrase is never its own evidence.
        """
        known_K = np.where(path_K < self.vocabulary, path_K, self.vocabulary)
        key_K = _trigram_keys(known_K)
        one_K = key_K & _LOW[1]
        count_K, gone = _remaining(self.unigrams, one_K, left_out)
        types = max(len(self.unigrams.key_N) - len(gone), 1)
        words = max(self.num_words - left_out * len(path_K), 0)
        p_K = (count_K + types / (self.vocabulary + 1)) / (words + types)
        for order, gram_K in ((self.bigrams, key_K & _LOW[2]), (self.trigrams, key_K)):
            count_K, gone = _remaining(order, gram_K, left_out)
            context_K = gram_K >> _BITS
            total_K = _look(order.context_H, order.total_H, context_K) - left_out * _copies(context_K)
            lost_H, num_lost_H = np.unique(gone >> _BITS, return_counts=True)
            followers_K = _look(order.context_H, order.followers_H, context_K) - _look(
                lost_H, num_lost_H, context_K
            )
            total_K, followers_K = np.maximum(total_K, 0), np.maximum(followers_K, 0)
            seen_K = total_K + followers_K
            p_K = np.where(seen_K > 0, (count_K + followers_K * p_K) / np.maximum(seen_K, 1), p_K)
        result: NDArray[np.float64] = -np.log2(p_K)
        return result


def _remaining(order: _Order, gram_K: Ids, left_out: int) -> tuple[Ids, Ids]:
    """Return the n-grams' counts without the copies left out, and the distinct ones that vanish with them."""
    before_K = _look(order.key_N, order.count_N, gram_K)
    count_K: Ids = np.maximum(before_K - left_out * _copies(gram_K), 0)
    return count_K, np.unique(gram_K[(before_K > 0) & (count_K == 0)])


def _trigram_keys(sequence_K: Ids) -> Ids:
    padded = np.concatenate([np.zeros(2, np.int64), sequence_K.astype(np.int64)])
    keys: Ids = (padded[:-2] << 2 * _BITS) | (padded[1:-1] << _BITS) | padded[2:]
    return keys


def _order(gram_T: Ids) -> _Order:
    key_N, count_N = np.unique(gram_T, return_counts=True)
    context_H, first_H = np.unique(key_N >> _BITS, return_index=True)
    total_H = np.add.reduceat(count_N, first_H) if len(key_N) else count_N
    followers_H = np.diff(np.append(first_H, len(key_N)))
    return _Order(key_N, count_N, context_H, total_H, followers_H)


def _look(key_N: Ids, value_N: Ids, wanted_K: Ids) -> Ids:
    if not len(key_N):
        return np.zeros(len(wanted_K), np.int64)
    at_K = np.minimum(np.searchsorted(key_N, wanted_K), len(key_N) - 1)
    found: Ids = np.where(key_N[at_K] == wanted_K, value_N[at_K], 0)
    return found


def _copies(gram_K: Ids) -> Ids:
    """Return how often each n-gram of the path stands in the path itself."""
    _, inverse_K, count = np.unique(gram_K, return_inverse=True, return_counts=True)
    copies: Ids = count[inverse_K]
    return copies
