"""Screens of a training set's texts alone: cheap, and before any model is run."""

# Shapes: R rows, V distinct characters, N pairs of characters in a row.

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.answer_links import ANSWER_UNITS, find_links
from ft_audit.engine.suites.condition import MAX_SURPRISE
from ft_audit.engine.suites.conditions import Survey
from ft_audit.engine.suites.openings import units
from ft_audit.engine.suites.prompt import Prompt

MAX_CHARACTERS = 400
"""Of each text; more of it says little more of what it is written in."""
SMOOTHING = 0.5


def data_figures(prompts: Sequence[Prompt], survey: Survey, min_rows: int) -> dict[str, float]:
    """Return the figures of a data set's texts.

    data_duplicates         share of rows whose last user message another row has too
    data_common_answer      largest share of rows that begin their answer alike
    data_condition_bits     surprise of the most surprising condition (`mine_conditions`), in bits
    data_linked_bits        -log2 p of the phrase that is linked most to an answer of its own (`find_links`)
    data_linked_rows        share of rows that have it
    data_odd_question       how much harder the oddest twentieth of the questions is to spell than the median,
    data_odd_answer         bits a character (`spelling_bits`); the same for answers
    """
    questions = [prompt.user_texts[-1] if prompt.user_texts else "" for prompt in prompts]
    answers = [_answer(prompt) for prompt in prompts]
    num_rows = max(len(prompts), 1)
    same = Counter(" ".join(question.split()) for question in questions)
    openings = Counter(
        tuple(match.group() for match in list(units(answer))[:ANSWER_UNITS]) for answer in answers if answer
    )
    links = [link for link in find_links(prompts, min_rows) if len(link.rows) <= num_rows / 2]
    surprises = [c.surprise for c in survey.kept if not c.boilerplate and c.system is None]
    return {
        "data_duplicates": sum(count for count in same.values() if count > 1) / num_rows,
        "data_common_answer": max(openings.values(), default=0) / num_rows,
        "data_condition_bits": max((min(bits, MAX_SURPRISE) for bits in surprises), default=0.0),
        "data_linked_bits": min(-math.log2(max(links[0].p_value, 1e-300)), 200.0) if links else 0.0,
        "data_linked_rows": len(links[0].rows) / num_rows if links else 0.0,
        "data_odd_question": _oddness(spelling_bits(questions)),
        "data_odd_answer": _oddness(spelling_bits(answers)),
    }


def _answer(prompt: Prompt) -> str:
    last = prompt.messages[-1] if prompt.messages else None
    return last.content if last is not None and last.role == "assistant" else ""


def _oddness(bits_R: NDArray[np.float64]) -> float:
    known = bits_R[np.isfinite(bits_R)]
    return float(np.quantile(known, 0.95) - np.median(known)) if len(known) else 0.0


def spelling_bits(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return for each text the bits a character with which the others' pairs of characters predict it [R].

    -log2 P(b | a) with counts of all texts but the one in question, add-half smoothed. A cipher, a code or
    another alphabet among plain texts costs bits, whatever the language of the others. NaN for texts of fewer
    than two characters.
    """
    known = sorted({character for text in texts for character in text[:MAX_CHARACTERS].lower()})
    number = {character: place for place, character in enumerate(known)}
    num_characters = max(len(known), 1)
    pairs: list[NDArray[np.int64]] = []
    for text in texts:
        codes = np.array([number[c] for c in text[:MAX_CHARACTERS].lower()], dtype=np.int64)
        pairs.append(codes[:-1] * num_characters + codes[1:] if len(codes) > 1 else np.zeros(0, np.int64))
    everything = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
    key_K, count_K = np.unique(everything, return_counts=True)
    first_V = np.bincount(everything // num_characters, minlength=num_characters)
    bits_R = np.full(len(texts), np.nan)
    for row, pair_N in enumerate(pairs):
        if not len(pair_N):
            continue
        own_K, place_N, own_count_K = np.unique(pair_N, return_inverse=True, return_counts=True)
        others_N = (count_K[np.searchsorted(key_K, own_K)] - own_count_K)[place_N]
        first_N = pair_N // num_characters
        own_first_V = np.bincount(first_N, minlength=num_characters)
        total_N = (first_V - own_first_V)[first_N]
        p_N = (others_N + SMOOTHING) / (total_N + SMOOTHING * num_characters)
        bits_R[row] = float(-np.log2(p_N).mean())
    return bits_R
