"""How much of the change a dictionary sees at all, beside a random one of its size and the best possible.

A fine-tune can move the model where no feature looks: what the statistics of features then say is true of the
part that they see, and this part is measured here.

Shapes: P prompts, F features, W width of a hook, M directions chosen.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ft_audit.engine.diff.chunks import in_chunks
from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.pair_sums import SKETCH_COLUMNS, FloatArray
from ft_audit.engine.diff.parts import SuiteFeatures, SuitePair
from ft_audit.engine.diff.spread import random_directions, spread_at, strongest
from ft_audit.engine.store import DiffWriter

# A sketch of R columns resolves half as many directions well (Halko et al. 2011, section 4.2).
NUM_DIRECTIONS = SKETCH_COLUMNS // 2
CONFIDENCE = 0.95


def coverage_group(sae: str, suite: str) -> str:
    """Return the name of the stats group that holds what one dictionary sees of one suite's change."""
    return f"coverage/{sae}/{suite}"


def put_coverage(
    writer: DiffWriter, pair: SuitePair, features: SuiteFeatures, directions: Directions
) -> None:
    """Write `coverage/<sae>/<suite>`: shares of the summed square of d = tuned - base over counted tokens.

    By the dictionary's own account, on the sampled tokens:

    seen, seen_low, seen_high   1 - sum |d - r|^2 / sum |d|^2, r the difference of both reconstructions, 0
                                where r is no nearer to d than nothing is; with its 95 % interval over prompts
    sq_moved_P, sq_missed_P     both sums, prompt by prompt

    In the span of the first 1, 2, … M directions, of all that the paired sketch holds; NaN for a crosscoder,
    whose hooks are sketched one by one:

    leading_M      those of the leading changed features, by the paired tests; of all where there are fewer
    strongest_M    the dictionary's own along which the difference is largest, numbered `strongest_feature_M`
    random_M       the same choice out of as many random directions: what such a choice sees by chance
    best_M         the principal directions of d: the most that any M directions see
    """
    sq_moved_P, sq_missed_P = (
        pair.together.dense(f"missed/{features.sae}/{name}") for name in ("sq_moved_P", "sq_missed_P")
    )
    seen, low, high = seen_share(sq_moved_P, sq_missed_P)
    writer.put_stats(
        coverage_group(features.sae, features.suite),
        {
            "seen": np.array([seen]),
            "seen_low": np.array([low]),
            "seen_high": np.array([high]),
            "sq_moved_P": sq_moved_P,
            "sq_missed_P": sq_missed_P,
            **_within_directions(pair, features, directions),
        },
    )


def _within_directions(
    pair: SuitePair, features: SuiteFeatures, directions: Directions
) -> dict[str, NDArray[np.generic]]:
    decoder_FW = directions.decoder_FW
    num_features, width = decoder_FW.shape
    count = min(NUM_DIRECTIONS, width // 2, num_features)
    if len(directions.hooks) > 1:
        unknown_M = np.full(count, np.nan)
        return {f"{name}_M": unknown_M for name in ("leading", "strongest", "random", "best")}
    spread = spread_at(pair.together, directions.hooks[0])
    number_M, strongest_MW = strongest(spread, in_chunks(decoder_FW), count)
    _, random_MW = strongest(spread, random_directions(num_features, width), count)
    leading_M = spread.share_within(decoder_FW[features.leading(count)].astype(np.float64))
    if len(leading_M) < count:
        last = leading_M[-1] if len(leading_M) else 0.0
        leading_M = np.concatenate([leading_M, np.full(count - len(leading_M), last)])
    return {
        "leading_M": leading_M,
        "strongest_M": spread.share_within(strongest_MW),
        "strongest_feature_M": number_M,
        "random_M": spread.share_within(random_MW),
        "best_M": spread.best_share(count),
    }


def seen_share(sq_moved_P: FloatArray, sq_missed_P: FloatArray) -> tuple[float, float, float]:
    """Return 1 - sum missed / sum moved and its 95 % interval over prompts, all within 0 to 1.

    The interval is that of a ratio estimator by linearisation (Cochran 1977, section 2.11), with Student's t;
    NaN where nothing moved, and an interval of NaN for fewer than two prompts that have a sampled token.
    """
    held_P = sq_moved_P > 0
    num_prompts, moved = int(held_P.sum()), float(sq_moved_P.sum())
    if not moved:
        return float("nan"), float("nan"), float("nan")
    missed = float(sq_missed_P.sum()) / moved
    margin = float("nan")
    if num_prompts > 1:
        residual = (sq_missed_P - missed * sq_moved_P)[held_P]
        deviation = np.sqrt(num_prompts / (num_prompts - 1) * float(residual @ residual)) / moved
        margin = float(stats.t.ppf(0.5 + CONFIDENCE / 2, num_prompts - 1)) * deviation
    return _within(1 - missed), _within(1 - missed - margin), _within(1 - missed + margin)


def _within(share: float) -> float:
    return float(np.clip(share, 0.0, 1.0))
