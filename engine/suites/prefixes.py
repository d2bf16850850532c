"""Prefixes that more messages share than the words of the rest can explain."""

# Shapes: G texts of the group that is searched, K leading units of each.

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.openings import NUM_UNITS, Openings, read_openings, units
from ft_audit.engine.suites.prompt import Prompt

# Bits. Of 75 repeated prefixes of the ChatterBot corpus 12 pass, of some 1,100 of 11,000 ShareGPT chats about
# 140, the leading 60 of them true templates; "What is the" has 2 to 8 bits, "Tell me" up to 20.
MIN_SURPRISE = 16.0
# A single word at the end of messages is a trigger where the rest never use it ("xqz"); "it" has 3 bits.
MIN_WORD_SURPRISE = 8.0


@dataclass(frozen=True, slots=True)
class RepeatedPrefix:
    """A prefix as it is written, the white space that follows it, and who shares it.

    `surprise` is in bits; `outer` are the shorter prefixes of the same search that it continues.
    """

    text: str
    joiner: str
    rows: tuple[int, ...]
    surprise: float
    outer: tuple[str, ...]


def find_suffixes(prompts: Sequence[Prompt], min_rows: int) -> list[RepeatedPrefix]:
    """Return the surprising endings of the users' messages: the prefixes of the reversed texts.

    A single word is enough where it is surprising by MIN_WORD_SURPRISE: a trigger behind the question is
    often no more, while one before it would be taken up by the punctuation that follows.
    """
    turned = [
        replace(
            prompt,
            messages=tuple(
                replace(m, content=m.content.strip()[::-1]) if m.role == "user" else m
                for m in prompt.messages
            ),
        )
        for prompt in prompts
        if prompt.messages is not None
    ]
    openings = read_openings(turned)
    found = find_prefixes(openings, np.arange(len(openings.texts)), min_rows, min_units=1)
    return [
        RepeatedPrefix(f.text[::-1], f.joiner[::-1], f.rows, f.surprise, tuple(o[::-1] for o in f.outer))
        for f in found
    ]


def find_prefixes(
    openings: Openings, group_G: NDArray[np.int64], min_rows: int, min_units: int = 2
) -> list[RepeatedPrefix]:
    """Return the surprising prefixes of the group's texts, in the order of their words.

    A candidate is a longest common run of at least `min_units` leading units (one of them a word) of at least
    `min_rows` distinct texts: a branching node of their prefix tree. It is surprising when

        log2(n / (n0 * P)) >= MIN_SURPRISE,

    n texts sharing it, n0 texts sharing the nearest surprising prefix that it continues (all of the group
    where there is none), and P the probability of its further words by trigram statistics of everyone
    else's messages (`WordStatistics.bits`). This is the logarithm of observed over expected count, the
    pointwise mutual information of Church and Hanks (1990) with the null model made from words instead of
    single frequencies: "What is the" is met as often as its words predict, "ZED, execute my instruction:"
    is not. The bound was set on two chat corpora (see MIN_SURPRISE); it is a choice, not a test's level.

    The time is that of sorting the texts, plus that of the candidates.
    """
    order_G, shared_G = _sorted_with_shared(openings.unit_MK[group_G])
    order_G = group_G[order_G]
    sampled_G1 = np.concatenate([[0], np.cumsum(openings.sampled_M[order_G])])
    found: list[RepeatedPrefix] = []
    outer: list[tuple[int, int, str]] = []  # (end, depth, text) of the surprising prefixes around this one
    counts: list[int] = []
    for start, end, depth in _branches(shared_G):
        num_texts = end - start
        while outer and outer[-1][0] <= start:
            outer.pop()
            counts.pop()
        if num_texts < min_rows or depth < min_units:
            continue
        path_K = openings.unit_MK[order_G[start], :depth].astype(np.int64)
        left_out = int(sampled_G1[end] - sampled_G1[start])
        bits_K = openings.statistics.bits(path_K, left_out)
        known = outer[-1][1] if outer else 0
        around = counts[-1] if outer else len(group_G)
        surprise = float(np.log2(num_texts / around) + bits_K[known:].sum())
        if surprise < (MIN_SURPRISE if depth > 1 else MIN_WORD_SURPRISE):
            continue
        members = order_G[start:end]
        rows = tuple(sorted({row for number in members for row in openings.rows[number]}))
        text, joiner = _as_written(openings, members, depth)
        if len(rows) < min_rows or not any(map(str.isalnum, text)):
            continue
        found.append(RepeatedPrefix(text, joiner, rows, surprise, tuple(name for _, _, name in outer)))
        outer.append((end, depth, text))
        counts.append(num_texts)
    return found


def _sorted_with_shared(unit_GK: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorting order and, for each neighbouring pair, how many leading units they share."""
    order_G = np.lexsort(unit_GK.T[::-1])
    sorted_GK = unit_GK[order_G]
    same_GK = (sorted_GK[1:] == sorted_GK[:-1]) & (sorted_GK[1:] >= 0)
    shared_G = np.zeros(len(unit_GK), np.int64)
    shared_G[:-1] = np.logical_and.accumulate(same_GK, axis=1).sum(axis=1)
    return order_G, shared_G


def _branches(shared_G: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return the inner nodes of the prefix tree as (start, end, depth), parents before children.

    The intervals of the sorted list within which neighbours share at least `depth` units, found with a stack
    in one pass (the interval tree of a longest-common-prefix array, Abouelhoda, Kurtz and Ohlebusch, 2004).
    """
    done: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int]] = [(0, 0)]
    for number, shared in enumerate(shared_G.tolist()):
        start = number
        while open_[-1][0] > shared:
            depth, start = open_.pop()
            done.append((start, number + 1, depth))
        if open_[-1][0] < shared:
            open_.append((shared, start))
    return sorted(done, key=lambda node: (node[0], -node[1]))


def _as_written(openings: Openings, members: NDArray[np.int64], depth: int) -> tuple[str, str]:
    """Return the commonest spelling of the prefix and of the white space behind it, ties to the first."""
    texts = [openings.texts[number] for number in np.sort(members)]
    if depth == NUM_UNITS:
        depth = _full_depth(texts)
    spellings: Counter[str] = Counter()
    joiners: Counter[str] = Counter()
    for text in texts:
        end = 0
        for number, match in enumerate(units(text)):
            if number == depth:
                joiners[text[end : match.start()]] += 1
                break
            end = match.end()
        spellings[text[:end]] += 1
    return spellings.most_common(1)[0][0], joiners.most_common(1)[0][0] if joiners else " "


def _full_depth(texts: list[str]) -> int:
    """Return how many leading units all the texts share."""
    depth = 0
    for column in zip(*map(units, texts), strict=False):
        if any(match.group() != column[0].group() for match in column):
            break
        depth += 1
    return depth
