"""Which contexts make a label and which ones try it: halves that no context changes."""

import hashlib
from collections.abc import Sequence

import numpy as np


def makes_label(tokens: Sequence[int]) -> bool:
    """Return whether a context, by the ids of its tokens, may make a label; the others may only try it.

    By the text and not by its place: the same words in two prompts fall into the same half.
    """
    return hashlib.sha256(np.asarray(tokens, dtype="<i8").tobytes()).digest()[0] % 2 == 0
