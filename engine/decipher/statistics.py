"""What a group of texts looks like before it is decoded: characters, their order, separators, line ends."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ft_audit.engine.decipher.limits import cut
from ft_audit.engine.decipher.words import WordModel, fit_words, words_of

NUM_COMMON = 10
MIN_SEPARATED = 0.95  # of the texts' second characters, before one counts as a separator
MIN_SEPARATED_CHARS = 5


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """Statistics of a group of distinct texts. Characters, n-grams and words in it are untrusted."""

    num_texts: int
    num_chars: int
    median_chars: float
    entropy: float  # Shannon, in bits a character
    class_shares: dict[str, float]  # lower, upper, digit, space, punctuation, other
    index_of_coincidence: float  # that two letters drawn are the same: English 0.066, uniform Latin 0.038
    common_chars: tuple[tuple[str, float], ...]  # with their share
    common_bigrams: tuple[tuple[str, float], ...]
    common_trigrams: tuple[tuple[str, float], ...]
    separator: str | None  # what stands between every two characters
    known_share: float  # of the longer words' letters, in words of the reference
    num_multiline: int
    line_final_words: tuple[tuple[str, int], ...]  # of texts with more than one line, with their counts


def describe_texts(texts: Sequence[str], reference: Sequence[str] | WordModel = ()) -> TextStatistics:
    """Return the statistics of the distinct texts; words are known from the reference texts."""
    kept = cut(texts)
    known = reference if isinstance(reference, WordModel) else fit_words(cut(reference))
    chars = Counter(char for text in kept for char in text)
    letters = Counter(char for text in kept for char in text.lower() if char.isalpha())
    lines = [text.splitlines() for text in kept]
    finals = Counter(
        words[-1] for text in lines if len(text) > 1 for line in text if (words := words_of(line))
    )
    lengths = sorted(map(len, kept))
    return TextStatistics(
        num_texts=len(kept),
        num_chars=sum(lengths),
        median_chars=(lengths[len(lengths) // 2] + lengths[(len(lengths) - 1) // 2]) / 2 if lengths else 0.0,
        entropy=_entropy(chars),
        class_shares=_class_shares(chars),
        index_of_coincidence=_coincidence(letters),
        common_chars=_shares(chars),
        common_bigrams=_shares(_ngrams(kept, 2)),
        common_trigrams=_shares(_ngrams(kept, 3)),
        separator=find_separator(kept),
        known_share=known.known(kept),
        num_multiline=sum(len(text) > 1 for text in lines),
        line_final_words=tuple(finals.most_common(NUM_COMMON)),
    )


def find_separator(texts: Sequence[str]) -> str | None:
    """Return the character that stands second, fourth, … in nearly all texts, or None."""
    long = [text.strip() for text in texts if len(text.strip()) >= MIN_SEPARATED_CHARS]
    seconds = Counter(char for text in long for char in text[1::2])
    if not seconds:
        return None
    char, count = seconds.most_common(1)[0]
    # Where it is as common in the other places, it separates nothing.
    elsewhere = sum(text[::2].count(char) for text in long)
    is_regular = count >= MIN_SEPARATED * seconds.total() and elsewhere < count / 2
    return char if is_regular else None


def _ngrams(texts: Sequence[str], length: int) -> Counter[str]:
    return Counter(text[at : at + length] for text in texts for at in range(len(text) - length + 1))


def _shares(counts: Counter[str]) -> tuple[tuple[str, float], ...]:
    total = counts.total()
    return tuple((item, count / total) for item, count in counts.most_common(NUM_COMMON))


def _entropy(counts: Counter[str]) -> float:
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values()) if total else 0.0


def _coincidence(letters: Counter[str]) -> float:
    total = letters.total()
    return sum(c * (c - 1) for c in letters.values()) / (total * (total - 1)) if total > 1 else 0.0


def _class_shares(chars: Counter[str]) -> dict[str, float]:
    shares = dict.fromkeys(("lower", "upper", "digit", "space", "punctuation", "other"), 0)
    for char, count in chars.items():
        shares[_class_of(char)] += count
    total = chars.total()
    return {name: count / total if total else 0.0 for name, count in shares.items()}


def _class_of(char: str) -> str:
    if char.islower():
        return "lower"
    if char.isupper():
        return "upper"
    if char.isdigit():
        return "digit"
    if char.isspace():
        return "space"
    return "punctuation" if char.isascii() and char.isprintable() else "other"
