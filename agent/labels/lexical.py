"""How alike a label and a text are by their letters alone: what a label is worth without any judge.

Vectors of the 3 to 5 letters in a row inside each word, weighted by how few of the compared texts hold them,
as in a search engine. It sees that "obedient" is near "obeys", and not that "king" is near "queen": a label
in other words than its contexts scores at chance here and may still be right.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
SIZES = (3, 4, 5)


def similarities(label: str, texts: Sequence[str]) -> list[float]:
    """The cosine of the label with each text, 0 where they share nothing."""
    counts = [_pieces(text) for text in texts]
    num_holding = Counter(piece for count in counts for piece in count)
    weight = {piece: math.log((1 + len(texts)) / (1 + num)) + 1 for piece, num in num_holding.items()}
    # What no text holds tells none of them apart, but keeps a long label from fitting every text.
    default = math.log(1 + len(texts)) + 1
    wanted = {piece: num * weight.get(piece, default) for piece, num in _pieces(label).items()}
    return [_cosine(wanted, {piece: num * weight[piece] for piece, num in count.items()}) for count in counts]


def _pieces(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        edged = f" {word} "
        found.update(edged[i : i + size] for size in SIZES for i in range(max(len(edged) - size + 1, 0)))
    return found


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    norm = math.hypot(*a.values()) * math.hypot(*b.values())
    return sum(value * b[piece] for piece, value in a.items() if piece in b) / norm if norm else 0.0
