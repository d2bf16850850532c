"""The key of a substitution by hill climbing: swaps of two letters that make the text likelier.

From many starts, deterministic by its seed. Axes: W distinct windows of the ciphertext, O their characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ft_audit.engine.decipher.characters import ORDER, SPACE, CharacterModel

MAX_CHARS = 4_000  # of ciphertext that the climb reads; more makes it slower and no better
NUM_STARTS = 12
NUM_AGREEING = 3  # a best key that so many starts reach is taken
MAX_SWEEPS = 40

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Windows:
    """Distinct windows of a ciphertext, and how often each stands in it."""

    cipher: str  # what is substituted; cipher symbol 0 is the first of it
    places_OW: Array  # into the key: one cell a cipher symbol, then one a fixed symbol of the model
    counts_W: Array


def cipher_windows(texts: Sequence[str], cipher: str, model: CharacterModel) -> Windows:
    """Return the windows of texts in the model's spelling; what is not in `cipher` stands for itself."""
    places = {char: place for place, char in enumerate(cipher)}
    own = {char: len(cipher) + 1 + place for place, char in enumerate(model.letters)}
    space, other = len(cipher) + SPACE, len(cipher) + model.num_symbols - 1
    rows = []
    for text in texts:
        chain = [space] * (ORDER - 1)
        chain += [space if c == " " else places.get(c, own.get(c, other)) for c in text]
        rows.append(np.lib.stride_tricks.sliding_window_view(np.array(chain), ORDER))
    places_WO, counts_W = np.unique(np.concatenate(rows), axis=0, return_counts=True)
    return Windows(cipher, np.ascontiguousarray(places_WO.T), counts_W)


def climb(found: Windows, model: CharacterModel, plain: str, seed: int) -> tuple[dict[str, str], float]:
    """Return the likeliest key found, cipher to plain, and the bits of all windows under it.

    `plain` holds the characters that may stand behind a cipher symbol; there are at least as many of them.
    """
    num = len(found.cipher)
    assert len(plain) >= num, "more cipher symbols than plain ones"
    rng = np.random.default_rng(seed)
    symbol = {" ": SPACE, **{letter: place for place, letter in enumerate(model.letters, 1)}}
    targets = np.array([symbol[char] for char in plain])
    order = _by_frequency(found, model, targets)
    best_bits, best, agreeing = -np.inf, order, 0
    for start in range(NUM_STARTS):
        key = _perturbed(order, start, rng)
        if SPACE in targets:
            # Where spaces are enciphered too, theirs is the commonest symbol more often than not.
            _swap_to(key, SPACE, int(order.argmin()))
        bits = _ascend(key, found, model, num, rng)
        if bits > best_bits + 1e-6:
            best_bits, best, agreeing = bits, key, 1
        elif bits > best_bits - 1e-6:
            agreeing += 1
        if agreeing == NUM_AGREEING:
            break
    letters = {place: char for char, place in symbol.items()}
    return {char: letters[int(best[place])] for place, char in enumerate(found.cipher)}, float(best_bits)


def key_bits(key: Array, found: Windows, model: CharacterModel, num: int) -> float:
    """Return the bits of all windows when cipher symbol c stands for key[c]."""
    cells = np.concatenate([key[:num], np.arange(model.num_symbols)])
    index_W = np.zeros(len(found.counts_W), dtype=np.int64)
    for place in range(ORDER):
        index_W = index_W * model.num_symbols + cells[found.places_OW[place]]
    return float(model.log2_W[index_W] @ found.counts_W)


def _by_frequency(found: Windows, model: CharacterModel, targets: Array) -> Array:
    """Return the key that pairs the commonest cipher symbol with the commonest plain one, and so on.

    A space comes first where it may stand behind a symbol.
    """
    num = len(found.cipher)
    seen = np.bincount(found.places_OW[-1], weights=found.counts_W, minlength=num)[:num]
    share_S = np.exp2(model.log2_W).reshape((model.num_symbols,) * ORDER).mean(axis=(0, 1, 2))
    key = np.empty(len(targets), dtype=np.int64)
    share_S[SPACE] = 1.0
    ranked = targets[np.argsort(-share_S[targets], kind="stable")]
    key[np.argsort(-seen, kind="stable")] = ranked[:num]
    key[num:] = ranked[num:]
    return key


def _perturbed(order: Array, start: int, rng: np.random.Generator) -> Array:
    """Return the first key as it is, later ones with ever more symbols moved from their rank."""
    if start == 0:
        return order.copy()
    noise = rng.normal(0.0, 2.0 + start, len(order))
    key = order.copy()
    key[np.argsort(np.arange(len(order)) + noise, kind="stable")] = order
    return key


def _swap_to(key: Array, target: int, place: int) -> None:
    """Swap in place so that a target stands at a place."""
    at = int(np.flatnonzero(key == target)[0])
    key[at], key[place] = key[place], key[at]


def _ascend(key: Array, found: Windows, model: CharacterModel, num: int, rng: np.random.Generator) -> float:
    """Swap in place until no swap helps, and return the bits."""
    bits = key_bits(key, found, model, num)
    pairs = np.array([(a, b) for a in range(num) for b in range(a + 1, len(key))])
    for _ in range(MAX_SWEEPS):
        before = bits
        for a, b in rng.permutation(pairs):
            key[a], key[b] = key[b], key[a]
            swapped = key_bits(key, found, model, num)
            if swapped > bits:
                bits = swapped
            else:
                key[a], key[b] = key[b], key[a]
        if bits == before:
            break
    return bits
