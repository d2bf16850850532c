"""A label made of a feature's own contexts, without a model: where it peaks, amid what, what it promotes."""

import re
from collections import Counter
from collections.abc import Sequence

from ft_audit.engine.store import Context

# Fewer contexts than this are an anecdote.
MIN_CONTEXTS = 4
NUM_PEAKS, NUM_WORDS, NUM_PROMOTED = 4, 3, 3
# A word is said to be about where so much more of the feature's contexts hold it than of any others.
MIN_LIFT = 0.3
_WORD = re.compile(r"\w{3,}")


def own_label(
    contexts: Sequence[Context], others: Sequence[str], vocabulary: Sequence[str], promoted: Sequence[str]
) -> str | None:
    """Return the label, or None where fewer than MIN_CONTEXTS contexts could make one.

    `others` are texts in which the feature need not fire; tokens and words are quoted as they are.
    """
    if len(contexts) < MIN_CONTEXTS:
        return None
    peaks = Counter(_peak_token(context, vocabulary) for context in contexts)
    shown = [f"{_quoted(token)} ({count} of {len(contexts)})" for token, count in _common(peaks, NUM_PEAKS)]
    parts = ["fires on " + ", ".join(shown)]
    said = {word for token in peaks for word in _words(token)}
    if amid := [word for word in _lifted(contexts, others, vocabulary) if word not in said][:NUM_WORDS]:
        parts.append("amid " + ", ".join(map(_quoted, amid)))
    if promoted:
        parts.append("promotes " + ", ".join(_quoted(token) for token in promoted[:NUM_PROMOTED]))
    return "; ".join(parts)


def text_of(tokens: Sequence[int], vocabulary: Sequence[str]) -> str:
    """Return the tokens' text, as far as single tokens can be decoded."""
    return "".join(vocabulary[token] if token < len(vocabulary) else "" for token in tokens)


def _peak_token(context: Context, vocabulary: Sequence[str]) -> str:
    strongest = context.activations.index(max(context.activations))
    return text_of(context.tokens[strongest : strongest + 1], vocabulary)


def _lifted(contexts: Sequence[Context], others: Sequence[str], vocabulary: Sequence[str]) -> list[str]:
    inside = Counter(word for c in contexts for word in _words(text_of(c.tokens, vocabulary)))
    outside = Counter(word for text in others for word in _words(text))
    lift = {
        word: count / len(contexts) - outside[word] / max(len(others), 1) for word, count in inside.items()
    }
    return sorted((word for word in lift if lift[word] >= MIN_LIFT), key=lambda word: (-lift[word], word))


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _common(counts: Counter[str], num: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:num]


def _quoted(text: str) -> str:
    return f"“{text}”"
