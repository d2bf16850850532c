"""The mergeable per-feature moments of one model pair, and their merge.

Legend: T tokens, P prompts, F features. A token counts when its mask is set; a prompt counts when at least
one of its tokens does. Every statistic is over counted tokens and counted prompts alone.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Sums over paired tokens and prompts, one array entry per feature; add two with `merge`.

    With n_p the counted tokens of prompt p: d_p = (sum of tuned - sum of base activations) / n_p and
    r_p = (tuned firings - base firings) / n_p, so prompts weigh alike whatever their length.
    """

    num_tokens: int
    num_prompts: int
    fired_base: IntArray
    fired_tuned: IntArray
    fired_both: IntArray
    sum_base: FloatArray
    sum_tuned: FloatArray
    sumsq_base: FloatArray
    sumsq_tuned: FloatArray
    cross: FloatArray
    max_base: FloatArray
    max_tuned: FloatArray
    prompts_base: IntArray
    prompts_tuned: IntArray
    prompts_either: IntArray
    sum_d: FloatArray
    sumsq_d: FloatArray
    sum_r: FloatArray
    sumsq_r: FloatArray

    @property
    def num_features(self) -> int:
        return len(self.fired_base)

    def arrays(self) -> dict[str, np.ndarray]:
        """The per-feature arrays by name, each [F]; the two scalars are left out."""
        return {name: getattr(self, name) for name in ARRAY_NAMES}


# The order of the arrays, and of the columns of every table of totals that a kernel keeps.
ARRAY_NAMES = tuple(f.name for f in fields(PairMoments) if f.name not in ("num_tokens", "num_prompts"))
MAXIMA = ("max_base", "max_tuned")
COUNTS = ("fired_base", "fired_tuned", "fired_both", "prompts_base", "prompts_tuned", "prompts_either")


def empty(num_features: int) -> PairMoments:
    """The moments of no tokens at all: the neutral element of `merge`."""
    arrays: dict[str, Any] = {
        name: np.zeros(num_features, dtype=np.int64 if name in COUNTS else np.float64) for name in ARRAY_NAMES
    }
    return PairMoments(num_tokens=0, num_prompts=0, **arrays)


def from_table(num_tokens: int, num_prompts: int, table_CF: FloatArray) -> PairMoments:
    """The moments from a table of one row per name of ARRAY_NAMES; counts must be whole numbers."""
    assert len(table_CF) == len(ARRAY_NAMES), len(table_CF)
    arrays: dict[str, Any] = {
        name: row_F.astype(np.int64 if name in COUNTS else np.float64)
        for name, row_F in zip(ARRAY_NAMES, table_CF, strict=True)
    }
    return PairMoments(num_tokens, num_prompts, **arrays)


def merge(a: PairMoments, b: PairMoments) -> PairMoments:
    """The moments of both parts together; counts are exact, float sums associative up to fp64 rounding."""
    assert a.num_features == b.num_features, (a.num_features, b.num_features)
    arrays: dict[str, Any] = {
        name: np.maximum(getattr(a, name), getattr(b, name))
        if name in MAXIMA
        else getattr(a, name) + getattr(b, name)
        for name in ARRAY_NAMES
    }
    return PairMoments(a.num_tokens + b.num_tokens, a.num_prompts + b.num_prompts, **arrays)
