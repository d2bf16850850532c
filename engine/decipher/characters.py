"""A character model of reference texts: how many bits a text costs under it.

Four-character windows, interpolated down to single letters after Witten and Bell (The zero-frequency problem,
1991, method C). Letters are told apart; digits, punctuation and rarer letters share one symbol, and within it
cost what their own frequency makes them cost, so that no text is free because it holds none of our letters.
Axes: N characters, S symbols of the alphabet.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ft_audit.engine.decipher.english import LETTERS, PAIRS

ORDER = 4
SPACE = 0
MAX_LETTERS = 36
MIN_LETTER_SHARE = 5e-4  # rarer letters of a reference, accents in borrowed words, join the other characters
# What the built-in English counts beside the reference: little, so that any real reference outweighs it.
LETTER_WEIGHT = 20.0
PAIR_WEIGHT = 200.0
# Norvig counts 4.8 letters a word, so about every sixth character is a space; punctuation is a guess.
SPACE_SHARE, OTHER_SHARE = 0.18, 0.03
OTHER_CHARACTERS = 200  # how many other characters a text may choose from, for those never seen

Array = np.ndarray[Any, Any]


def plain(text: str, spaced: bool = True) -> str:
    """Return the text as the model reads it: lower case, single spaces or, unspaced, letters alone."""
    if spaced:
        return " ".join(text.lower().split())
    return "".join(char for char in text.lower() if char.isalpha())


@dataclass(frozen=True, slots=True)
class CharacterModel:
    """What each window costs. `log2_W` is flat over S^4 windows: of the last character after the others."""

    letters: str  # symbol 1 is the first of them; 0 is the space, the last symbol is any other character
    log2_W: Array
    other: Mapping[str, float]  # log2 of a character's share among the other characters
    unseen: float
    spaced: bool

    @property
    def num_symbols(self) -> int:
        return len(self.letters) + 2

    def symbols(self, text: str) -> Array:
        """Return the symbols of a text in the model's own spelling."""
        return _symbols(plain(text, self.spaced), self.letters)

    def bits(self, text: str) -> tuple[float, int]:
        """Return log2 of the text's probability, and the characters it has in the model's own spelling."""
        own = plain(text, self.spaced)
        if not own:
            return 0.0, 0
        total = float(self.log2_W[windows(_symbols(own, self.letters), self.num_symbols)].sum())
        known = set(self.letters)
        total += sum(self.other.get(char, self.unseen) for char in own if char != " " and char not in known)
        return total, len(own)

    def score(self, texts: Sequence[str]) -> float:
        """Return bits a character over all texts, below 0 and higher for likelier text; -inf without any."""
        parts = [self.bits(text) for text in texts]
        length = sum(num for _, num in parts)
        return sum(bits for bits, _ in parts) / length if length else -math.inf


def fit_characters(texts: Sequence[str], spaced: bool = True) -> CharacterModel:
    """Return the model of the texts; without texts, that of English letters and pairs alone."""
    own = [plain(text, spaced) for text in texts]
    letters = _letters("".join(own))
    num = len(letters) + 2
    counts = np.zeros(num**ORDER)
    for text in own:
        np.add.at(counts, windows(_symbols(text, letters), num), 1)
    others = Counter(char for text in own for char in text if char != " " and char not in letters)
    seen = sum(others.values()) + 0.5 * OTHER_CHARACTERS
    return CharacterModel(
        letters,
        np.log2(_interpolated(counts, letters)).astype(np.float32).ravel(),
        {char: math.log2((count + 0.5) / seen) for char, count in others.items()},
        math.log2(0.5 / seen),
        spaced,
    )


def windows(symbols_N: Array, num_symbols: int) -> Array:
    """Return the flat index of the window that ends at each character; before the text come spaces."""
    padded = np.concatenate([np.full(ORDER - 1, SPACE), symbols_N])
    index_N = np.zeros(len(symbols_N), dtype=np.int64)
    for place in range(ORDER):
        index_N = index_N * num_symbols + padded[place : place + len(symbols_N)]
    return index_N


def _letters(text: str) -> str:
    counts = Counter(char for char in text if char.isalpha())
    total = sum(counts.values())
    common = [char for char, count in counts.most_common() if count >= MIN_LETTER_SHARE * total]
    latin = [char for char in LETTERS if char not in common]
    # A reference in another script needs its own letters more than it needs ours.
    return "".join(sorted((common + latin)[:MAX_LETTERS]))


def _symbols(text: str, letters: str) -> Array:
    places = {" ": SPACE, **{letter: place for place, letter in enumerate(letters, 1)}}
    other = len(letters) + 1
    return np.fromiter((places.get(char, other) for char in text), dtype=np.int64, count=len(text))


def _interpolated(counts: Array, letters: str) -> Array:
    """Return the probability of each window's last character after the others, from the counts of windows."""
    num = len(letters) + 2
    full = counts.reshape((num,) * ORDER)
    single = full.sum(axis=(0, 1, 2)) + LETTER_WEIGHT * _shares(LETTERS, letters, num) + 0.01
    single[[SPACE, -1]] += LETTER_WEIGHT * np.array([SPACE_SHARE, OTHER_SHARE])
    probability = single / single.sum()
    for order in range(2, ORDER + 1):
        seen = full.sum(axis=tuple(range(ORDER - order)))
        if order == 2:
            seen = seen + PAIR_WEIGHT * _pair_shares(letters, num)
        kinds = (seen > 0).sum(axis=-1, keepdims=True)
        mass = seen.sum(axis=-1, keepdims=True) + np.maximum(kinds, 1)
        probability = (seen + np.maximum(kinds, 1) * probability) / mass
    return np.asarray(probability)


def _shares(table: Mapping[str, float], letters: str, num: int) -> Array:
    shares = np.zeros(num)
    for letter, share in table.items():
        if letter in letters:
            shares[1 + letters.index(letter)] = share / 100
    return shares


def _pair_shares(letters: str, num: int) -> Array:
    shares = np.zeros((num, num))
    for pair, share in PAIRS.items():
        if pair[0] in letters and pair[1] in letters:
            shares[1 + letters.index(pair[0]), 1 + letters.index(pair[1])] = share / 100
    return shares
