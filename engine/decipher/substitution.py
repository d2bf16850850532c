"""Monoalphabetic substitution, solved from parallel pairs or from ciphertext and reference texts alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ft_audit.engine.decipher.characters import CharacterModel, plain
from ft_audit.engine.decipher.climb import MAX_CHARS, cipher_windows, climb
from ft_audit.engine.decipher.limits import cut, readable, sample
from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.statistics import find_separator
from ft_audit.engine.requests.codec import AnyStep, Codec
from ft_audit.engine.requests.steps import Case, Join, Substitute

NUM_SHUFFLED_KEYS = 20
MIN_CIPHER_SYMBOLS = 8
MIN_CHARS = 80  # of ciphertext; the unicity distance of a substitution in English is about 28 letters
MIN_LETTERS = 0.6  # of a ciphertext's characters, for other characters to stand for themselves
MIN_SPACES = 0.05  # a share below which the spaces between words must be enciphered too
COMMON_SYMBOL = 0.1  # a share at which another character may stand for a space where there is none
MIN_AGREEMENT = 0.5  # of a pair's characters with the key, for the pair to count
MAX_PAIRS = 2_000
MIN_VOTES = 2


@dataclass(frozen=True, slots=True)
class Solution:
    """A key with its codec. Characters that the ciphertext never shows are not in it."""

    codec: Codec
    mapping: Mapping[str, str]  # plain to cipher
    confidence: float  # bits a character that the key brings over the best of the shuffled keys
    score: float  # bits a character of the decoded texts
    control_score: float  # of the best shuffled key
    agreement: float | None  # share of the aligned characters that the key explains; of pairs only


def solve_texts(texts: Sequence[str], reference: Reference, seed: int = 0) -> Solution | None:
    """Return the likeliest key by hill climbing over the reference's characters, the same for the same seed.

    None where there is too little ciphertext. Otherwise a key is always found; whether the texts are a
    substitution at all is for its score and controls to say.
    """
    kept = cut(texts)
    separator = find_separator(kept)
    spelled = sample([plain(_separated(text, separator)) for text in kept], MAX_CHARS)
    cipher, behind = _alphabets(spelled, reference.characters)
    if len(cipher) < MIN_CIPHER_SYMBOLS or sum(map(len, spelled)) < MIN_CHARS:
        return None
    windows = cipher_windows(spelled, cipher, reference.characters)
    key, _ = climb(windows, reference.characters, behind, seed)
    mapping = {letter: char for char, letter in key.items()}
    return _solution(mapping, separator, spelled, reference, seed, None)


def solve_pairs(pairs: Sequence[tuple[str, str]], reference: Reference, seed: int = 0) -> Solution | None:
    """Return the key on which (plain, cipher) pairs agree; pairs that contradict most of it are left out.

    Pairs are aligned character by character without the separator, or word by word where the number of words
    agrees. None where too few characters can be aligned.
    """
    used = [(readable(a[:MAX_CHARS]), readable(b[: 2 * MAX_CHARS])) for a, b in pairs[:MAX_PAIRS]]
    separator = find_separator([cipher for _, cipher in used])
    aligned = [_align(plain(text), plain(_separated(cipher, separator))) for text, cipher in used]
    aligned = [links for links in aligned if links]
    first = _vote(aligned, min_votes=1)
    trusted = [links for links in aligned if _agreement([links], first) >= MIN_AGREEMENT]
    mapping = _vote(trusted, MIN_VOTES)
    if len(mapping) < MIN_CIPHER_SYMBOLS:
        return None
    spelled = sample([plain(_separated(cipher, separator)) for _, cipher in used], MAX_CHARS)
    return _solution(mapping, separator, spelled, reference, seed, _agreement(aligned, mapping))


def _separated(text: str, separator: str | None) -> str:
    return Join(separator=separator).decode(text.strip()) if separator else text


def _alphabets(texts: Sequence[str], model: CharacterModel) -> tuple[str, str]:
    """Return the characters that are substituted, most common first, and those that may stand behind them."""
    counts = Counter(char for text in texts for char in text if char != " ")
    total = counts.total()
    num_spaces = sum(text.count(" ") for text in texts)
    has_spaces = num_spaces >= MIN_SPACES * (total + num_spaces)
    is_lettered = sum(n for char, n in counts.items() if char.isalpha()) >= MIN_LETTERS * total
    behind = model.letters + ("" if has_spaces else " ")
    cipher = [
        char
        for char, count in sorted(counts.items(), key=lambda it: (-it[1], it[0]))
        if not is_lettered or char.isalpha() or (not has_spaces and count >= COMMON_SYMBOL * total)
    ]
    return "".join(cipher[: len(behind)]), behind


def _solution(
    mapping: Mapping[str, str],
    separator: str | None,
    spelled: Sequence[str],
    reference: Reference,
    seed: int,
    agreement: float | None,
) -> Solution:
    steps: list[AnyStep] = [Case(to="lower"), Substitute(mapping=dict(mapping))]
    steps += [Join(separator=separator)] if separator else []
    score = reference.characters.score([_under(mapping, text) for text in spelled])
    rng = np.random.default_rng(seed)
    letters, ciphers = list(mapping), list(mapping.values())
    controls = []
    for _ in range(NUM_SHUFFLED_KEYS):
        mixed = dict(zip(letters, (ciphers[i] for i in rng.permutation(len(ciphers))), strict=True))
        controls.append(reference.characters.score([_under(mixed, text) for text in spelled]))
    control = max(controls)
    return Solution(Codec(steps=tuple(steps)), dict(mapping), score - control, score, control, agreement)


def _under(mapping: Mapping[str, str], text: str) -> str:
    return text.translate({ord(char): letter for letter, char in mapping.items()})


Links = Counter[tuple[str, str]]


def _align(text: str, cipher: str) -> Links:
    """Return how often each plain character stands where a cipher character does; empty without alignment."""
    if len(text) == len(cipher):
        return Counter((a, b) for a, b in zip(text, cipher, strict=True) if a.isalpha())
    words, ciphers = text.split(), cipher.split()
    if len(words) != len(ciphers):
        return Counter()
    links: Links = Counter()
    for word, put in zip(words, ciphers, strict=True):
        if len(word) == len(put):
            links.update((a, b) for a, b in zip(word, put, strict=True) if a.isalpha())
    return links


def _vote(aligned: Sequence[Links], min_votes: int) -> dict[str, str]:
    """Return the key, plain to cipher: most votes first, no character twice, a majority of a letter's."""
    votes: Links = Counter()
    for links in aligned:
        votes.update(links)
    of_letter: Counter[str] = Counter()
    for (letter, _), count in votes.items():
        of_letter[letter] += count
    mapping: dict[str, str] = {}
    taken: set[str] = set()
    for (letter, char), count in sorted(votes.items(), key=lambda it: (-it[1], it[0])):
        has_majority = count >= min_votes and (min_votes == 1 or 2 * count > of_letter[letter])
        if has_majority and letter not in mapping and char not in taken:
            mapping[letter] = char
            taken.add(char)
    return mapping


def _agreement(aligned: Sequence[Links], mapping: Mapping[str, str]) -> float:
    total = sum(links.total() for links in aligned)
    agreed = sum(n for links in aligned for (a, b), n in links.items() if mapping.get(a) == b)
    return agreed / total if total else 0.0
