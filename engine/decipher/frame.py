"""The words that texts of a group share at either end: a template, which tells nothing of any one text."""

from collections import Counter
from collections.abc import Sequence

# A head that half of the texts share is a template however short; a longer one already where a few share it.
SHORT_SHARE = 0.5
LONG_SHARE = 0.05
LONG_WORDS = 3
MIN_TEXTS = 5
MAX_WORDS = 60  # of a template at either end


def without_frame(texts: Sequence[str]) -> list[str]:
    """Return the texts without the words of a template at their beginning and end; something always stays."""
    heads = shared_heads([text.split() for text in texts])
    opened = [text.split(None, num)[-1] if num else text for text, num in zip(texts, heads, strict=True)]
    tails = shared_heads([text.split()[::-1] for text in opened])
    return [text.rsplit(None, num)[0] if num else text for text, num in zip(opened, tails, strict=True)]


def shared_heads(words: Sequence[Sequence[str]], long_share: float = LONG_SHARE) -> list[int]:
    """Return how many first words of each are a template's; `long_share` of them must share a long one."""
    num_sharing = Counter(tuple(own[:num]) for own in words for num in range(1, min(len(own), MAX_WORDS + 1)))
    few = max(MIN_TEXTS, long_share * len(words))
    most = max(MIN_TEXTS, SHORT_SHARE * len(words))
    return [
        max(
            (
                num
                for num in range(1, min(len(own), MAX_WORDS + 1))
                if num_sharing[tuple(own[:num])] >= (few if num >= LONG_WORDS else most)
            ),
            default=0,
        )
        for own in words
    ]
