"""The reference: models of plain texts, with what the same texts score when they were held out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ft_audit.engine.decipher.characters import CharacterModel, fit_characters
from ft_audit.engine.decipher.limits import cut
from ft_audit.engine.decipher.words import WordModel, fit_words

# Of plain English prose under a model of letters and pairs alone; used where there is nothing to hold out.
FALLBACK_SCORE = -4.1


@dataclass(frozen=True, slots=True)
class Reference:
    """Models of plain texts and what plain texts like them score: bits a character, share of known words."""

    texts: tuple[str, ...]
    characters: CharacterModel
    words: WordModel
    score: float  # of each half under the model of the other
    known: float


def fit_reference(texts: Sequence[str]) -> Reference:
    """Return the models of plain texts; without texts, of English letters, and no word is known."""
    kept = cut(texts)
    halves = kept[::2], kept[1::2]
    if not halves[1]:
        return Reference(tuple(kept), fit_characters(kept), fit_words(kept), FALLBACK_SCORE, 0.0)
    folds = [(halves[0], halves[1]), (halves[1], halves[0])]
    scores = [fit_characters(fit).score(held) for fit, held in folds]
    known = [fit_words(fit).known(held) for fit, held in folds]
    score = sum(scores) / 2 if all(map(math.isfinite, scores)) else FALLBACK_SCORE
    return Reference(tuple(kept), fit_characters(kept), fit_words(kept), score, sum(known) / 2)
