"""How much of hostile input is read: texts are cut and counted before anything looks at them."""

from collections.abc import Iterable, Sequence

MAX_TEXTS = 2_000
MAX_TEXT_CHARS = 4_000  # of one text
MAX_GROUP_CHARS = 200_000  # of all texts together


def cut(texts: Iterable[str]) -> list[str]:
    """Return distinct non-empty texts in order, each cut to a length, until the group is at its limits."""
    kept: dict[str, None] = {}
    left = MAX_GROUP_CHARS
    for text in texts:
        short = readable(text[: min(MAX_TEXT_CHARS, left)])
        if short.strip() and short not in kept:
            kept[short] = None
            left -= len(short)
        if left <= 0 or len(kept) == MAX_TEXTS:
            break
    return list(kept)


def readable(text: str) -> str:
    """Return the text with question marks for lone surrogates, which no file or JSON could carry on."""
    return text.encode("utf-8", "replace").decode("utf-8")


def sample(texts: Sequence[str], max_chars: int) -> list[str]:
    """Return texts spread evenly over the group, at most so many characters in all but always one text."""
    total = sum(map(len, texts))
    if total <= max_chars:
        return list(texts)
    every = -(-total // max_chars)
    return cut_to(texts[::every], max_chars)


def cut_to(texts: Sequence[str], max_chars: int) -> list[str]:
    """Return the first texts that hold so many characters, the last of them cut."""
    kept = []
    for text in texts:
        if max_chars <= 0:
            break
        kept.append(text[:max_chars])
        max_chars -= len(text)
    return kept
