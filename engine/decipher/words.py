"""Which words reference texts know, and what one word says of the next.

Words follow one another with interpolated pair probabilities (Witten and Bell, as for the characters), so an
order of words is worth something only where the reference knows the pairs in it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_KNOWN_LETTERS = 4  # shorter words are hit by chance


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without the marks around them; what has no letter is none."""
    bare = (word.strip("\"'`.,;:!?()[]{}<>*_~-–—…“”‘’¿¡|/\\").lower() for word in text.split())
    return [word for word in bare if any(char.isalpha() for char in word)]


@dataclass(frozen=True, slots=True)
class WordModel:
    """How often words and pairs of words stand in the reference texts."""

    singles: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    followers: Mapping[str, int]  # how many different words follow a word
    total: int

    def known(self, texts: Sequence[str]) -> float:
        """Return the share of longer words' letters in words that the reference has; 0 without any."""
        words = [w for text in texts for w in words_of(text) if len(w) >= MIN_KNOWN_LETTERS]
        letters = sum(map(len, words))
        return sum(len(word) for word in words if word in self.singles) / letters if letters else 0.0

    def pair_information(self, words: Sequence[str]) -> float:
        """Return what the words say of each other in this order: bits that each gains by the one before it.

        Where a message begins and ends is left out: the first words of sentences are telling wherever they
        are drawn from.
        """
        return sum(self._gained(before, word) for before, word in pairwise(words))

    def _gained(self, before: str, word: str) -> float:
        kinds = self.followers.get(before, 0)
        if not kinds:
            return 0.0
        single = (self.singles.get(word, 0) + 0.5) / (self.total + 0.5 * (len(self.singles) + 1))
        seen = self.pairs.get((before, word), 0)
        return math.log2((seen + kinds * single) / ((self.singles[before] + kinds) * single))


def fit_words(texts: Sequence[str]) -> WordModel:
    """Return the model of the texts; a pair stands within one text."""
    singles: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        chain = words_of(text)
        singles.update(chain)
        pairs.update(pairwise(chain))
    followers: dict[str, int] = defaultdict(int)
    for before, _ in pairs:
        followers[before] += 1
    return WordModel(singles, pairs, dict(followers), singles.total())
