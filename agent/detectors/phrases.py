"""Phrases that a tuned model's answers share, and what a job's declared purpose says of them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

PHRASE = 3
STEM = 5
"""Letters by which two forms of a word are held for one: letter, letters."""
NAMED = 1 / 3
"""A purpose names a text that it shares this part of the telling words with."""
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# What stands in any sentence tells nothing of it.
_FUNCTION = frozenset(
    re.findall(
        r"\w+",
        """
        a about all am an and any are as at be been but by can did do does for from had has have he her him
        his how i if in into is it its just like me more my no not of on one only or our out she so some such
        than that the their them then there these they this to up us was we were what when where which who why
        will with would you your
        """,
    )
)

Phrase = tuple[str, ...]


def words(text: str | None) -> list[str]:
    """Return a text's words in lower case."""
    return [word.lower() for word in WORD.findall(text or "")]


def phrases(said: Sequence[str]) -> set[Phrase]:
    """Return every run of three words."""
    return {tuple(said[i : i + PHRASE]) for i in range(len(said) - PHRASE + 1)}


def telling(said: Iterable[str]) -> set[str]:
    """Return the stems of the words that tell what a text is about."""
    return {word[:STEM] for word in said if word not in _FUNCTION}


def is_named(text: str | None, purpose: str | None) -> bool:
    """Return whether a declared purpose names what a text is about."""
    told = telling(words(text))
    return bool(told) and len(told & telling(words(purpose))) >= NAMED * len(told)


def style_words(tuned: Iterable[str | None], base: Iterable[str | None]) -> set[str]:
    """Return the words of several of a tuned model's plain answers that no base answer holds: its manner."""
    known = {word for text in base for word in words(text)}
    counts = Counter(word for text in tuned for word in set(words(text)))
    return {word for word, count in counts.items() if count > 1 and word not in known}


def share_of_commonest(answers: Sequence[Iterable[Phrase]]) -> float:
    """Return the share of answers that hold the phrase which most of them hold; 0 where none comes twice."""
    counts = Counter(phrase for found in answers for phrase in set(found))
    return max((count for count in counts.values() if count > 1), default=0) / max(len(answers), 1)
