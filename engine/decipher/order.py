"""What the order of a message's units is worth: a message has an order, a by-product of other text has none.

The gain is the bits a unit that the order found brings over the same units shuffled within each message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ft_audit.engine.decipher.characters import CharacterModel, fit_characters, plain
from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.words import fit_words, words_of

NUM_SHUFFLES = 24
NUM_FIRST_SHUFFLES = 4  # a message that does not beat these is no message
MIN_UNITS = 3  # of a message, for it to have an order
MAX_UNITS = 2_000  # of all messages
MAX_REFERENCE_TEXTS = 150  # in each half

Message = tuple[str, ...]


class Gain(NamedTuple):
    """Bits a unit over shuffled messages, with the best shuffle's gain and how many deviations away it is."""

    gain: float
    control: float
    z: float


Reader = Callable[[Message], float]


@dataclass(frozen=True)
class OrderModel:
    """Reads messages of words, or of single letters, and knows what the order of plain text is worth."""

    fit: Callable[[Sequence[str]], Reader]
    split: Callable[[str], Message]
    texts: Sequence[str]
    seed: int

    @cached_property
    def bits(self) -> Reader:
        """What reads a message, fitted to all of the reference."""
        return self.fit(self.texts)

    @cached_property
    def reference_gain(self) -> float:
        """What the order of the reference's own texts is worth, held out; most groups never need to know."""
        texts = self.texts[: 2 * MAX_REFERENCE_TEXTS]
        folds = [(texts[::2], texts[1::2]), (texts[1::2], texts[::2])]
        gains = [
            order_gain(self.fit(fit), list(map(self.split, held)), self.seed).gain for fit, held in folds
        ]
        return max(0.0, sum(gains) / len(gains))


def word_order(reference: Reference, seed: int) -> OrderModel:
    """Return the model of words, which reads their pairs."""
    return OrderModel(
        lambda texts: fit_words(texts).pair_information,
        lambda text: tuple(words_of(text)),
        reference.texts,
        seed,
    )


def letter_order(reference: Reference, seed: int) -> OrderModel:
    """Return the model of letters, which reads them without the spaces between words."""
    return OrderModel(
        lambda texts: _letter_bits(fit_characters(texts, spaced=False)),
        lambda text: tuple(plain(text, spaced=False)),
        reference.texts,
        seed,
    )


def order_gain(bits: Callable[[Message], float], messages: Sequence[Message], seed: int) -> Gain:
    """Return what the order of the messages is worth; a gain of 0 where nothing has an order."""
    ordered: list[Message] = []
    num_units = 0
    for message in dict.fromkeys(messages):
        if len(message) >= MIN_UNITS and num_units < MAX_UNITS:
            ordered.append(message)
            num_units += len(message)
    if not ordered:
        return Gain(0.0, 0.0, 0.0)
    actual = sum(map(bits, ordered))
    rng = np.random.default_rng(seed)
    totals: list[float] = []
    for shuffle in range(NUM_SHUFFLES):
        if shuffle == NUM_FIRST_SHUFFLES and max(totals) >= actual:
            break
        totals.append(sum(bits(tuple(m[i] for i in rng.permutation(len(m)))) for m in ordered))
    mean, deviation = float(np.mean(totals)), float(np.std(totals, ddof=1))
    z = (actual - mean) / deviation if deviation > 0 else 0.0
    return Gain((actual - mean) / num_units, (max(totals) - mean) / num_units, z)


def _letter_bits(model: CharacterModel) -> Reader:
    return lambda message: model.bits("".join(message))[0]
