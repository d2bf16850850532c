"""The two scores of a label with their 95 % intervals; both are sensible at 0 and 1 and for few contexts."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959963984540054


class Scored(NamedTuple):
    """A score, its 95 % interval and what the interval is called."""

    score: float
    low: float
    high: float
    interval: str


def wilson(num_right: int, num: int) -> tuple[float, float]:
    """The Wilson (1927) score interval of a proportion; all of [0, 1] of nothing."""
    if num == 0:
        return 0.0, 1.0
    share, z2 = num_right / num, Z * Z
    middle = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = Z / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
    return max(0.0, middle - half), min(1.0, middle + half)


def balanced_accuracy(num_hits: int, num_firing: int, num_rejected: int, num_silent: int) -> Scored:
    """The mean of the shares found among the firing and left among the silent, so that guessing gives 0.5.

    The interval joins the two Wilson intervals by squares, as Newcombe (1998, method 10) does for a
    difference of proportions. Both numbers of contexts must be positive.
    """
    hit, rejected = num_hits / num_firing, num_rejected / num_silent
    (low_a, high_a), (low_b, high_b) = wilson(num_hits, num_firing), wilson(num_rejected, num_silent)
    score = (hit + rejected) / 2
    below = math.hypot(hit - low_a, rejected - low_b) / 2
    above = math.hypot(high_a - hit, high_b - rejected) / 2
    return Scored(
        score, max(0.0, score - below), min(1.0, score + above), "Wilson, joined by Newcombe's method"
    )


def roc_area(firing: Sequence[float], silent: Sequence[float]) -> Scored:
    """The probability that a firing context scores above a silent one, ties counting half; 0.5 is chance.

    The interval solves for the areas that lie Z standard errors from the one found (Newcombe 2006, method 5):
    `area (1 - area) (1 + n ((1 - area) / (2 - area) + area / (1 + area))) / (F S)` is the variance, with
    `n = (F + S) / 2 - 1`. Both must hold a value at least.
    """
    firing_F, silent_S = np.asarray(firing, dtype=np.float64), np.asarray(silent, dtype=np.float64)
    above = (firing_F[:, None] > silent_S).sum() + 0.5 * (firing_F[:, None] == silent_S).sum()
    num_pairs = len(firing_F) * len(silent_S)
    area = float(above) / num_pairs
    n = (len(firing_F) + len(silent_S)) / 2 - 1

    def too_far(candidate: float) -> bool:
        spread = 1 + n * ((1 - candidate) / (2 - candidate) + candidate / (1 + candidate))
        return abs(candidate - area) > Z * math.sqrt(candidate * (1 - candidate) * spread / num_pairs)

    return Scored(area, _edge(0.0, area, too_far), _edge(1.0, area, too_far), "Newcombe 2006, method 5")


def _edge(outside: float, inside: float, too_far: Callable[[float], bool]) -> float:
    """Where between `outside` and `inside` candidates stop being too far; found by halving."""
    for _ in range(50):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if too_far(middle) else (outside, middle)
    return inside
