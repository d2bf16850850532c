"""The sums that a pair of models leaves per segment: how they merge, and what they say.

Shapes: W width of a hook, R columns of the sketch, B position buckets, V vocabulary, F features.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store import RunReader
from ft_audit.kernels.diff_stats import PairMoments

FloatArray = NDArray[np.float64]

# Positions from a prompt's start: the first sixteen by themselves, then each bucket twice as wide.
POSITION_EDGES = np.array([*range(16), *(1 << power for power in range(4, 21))])
FROM_END = 8  # the last tokens of a prompt, each by itself
SKETCH_COLUMNS = 32
SKETCH_SEED = 20_260
COMPONENTS = 8  # principal components that a diff keeps; the sketch has room to spare (Halko et al. 2011)
TOP_TOKENS = 5
# Divergences in nats, 24 buckets a decade: a quantile read from them is within 10 % of the exact one.
KL_EDGES = np.concatenate([[-np.inf], np.logspace(-8, 2, 241), [np.inf]])
SCALARS = ("tokens", "norm_base", "norm_tuned", "moved", "sq_base", "sq_moved", "cosine")
MAXIMA = ("logits/kl_max",)


def moment_arrays(prefix: str, moments: PairMoments) -> dict[str, NDArray[Any]]:
    """Return one group's moments as named arrays under a prefix."""
    counted = np.array([moments.num_tokens, moments.num_prompts], dtype=np.int64)
    return {f"{prefix}/counted": counted} | {f"{prefix}/{k}": v for k, v in moments.arrays().items()}


def read_moments(stats: Mapping[str, NDArray[Any]], prefix: str) -> PairMoments:
    """Return the moments that `moment_arrays` named."""
    tokens, prompts = stats[f"{prefix}/counted"].tolist()
    start = f"{prefix}/"
    arrays = {k.removeprefix(start): v for k, v in stats.items() if k.startswith(start)}
    del arrays["counted"]
    return PairMoments(tokens, prompts, **arrays)


def total(run: RunReader, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the named sums of a pair run over all of its segments."""
    found: dict[str, NDArray[Any]] = {}
    wanted = tuple(names)
    for segment in run.segments(saes=(), dense=(), stats=wanted):
        for name, array in segment.stats.items():
            if name not in found:
                found[name] = array
            elif name in MAXIMA:
                found[name] = np.maximum(found[name], array)
            else:
                found[name] = found[name] + array
    return found


def hook_statistics(run: RunReader, hook: str) -> dict[str, FloatArray]:
    """Return the paired statistics of one hook over the tokens that count in both models.

    mean_norm_base, mean_norm_tuned, mean_moved   mean norms of base, tuned and of their difference
    norm_ratio, mean_cosine                       tuned norm over base norm; cosine between the two
    relative_change                               root of the summed squared difference over base's squares
    shift_W                                       mean difference
    start_shift_BW, start_tokens_B                the same by position in the prompt, from `start_edges_B` on
    end_shift_BW, end_tokens_B                    the same for each of a prompt's last tokens, 0 the very last
    component_share_C, components_CW              leading principal components of the difference and the share
                                                  of its variance that each holds, from a sketch
    """
    prefix = f"pair/{hook}"
    parts = ("scalars", "start_BW", "end_BW", "shift_W", "sketch_WR")
    sums = total(run, [*(f"{prefix}/{part}" for part in parts), "pair/start_B", "pair/end_B"])
    scalars = dict(zip(SCALARS, sums[f"{prefix}/scalars"].tolist(), strict=True))
    tokens = max(scalars["tokens"], 1.0)
    shift_W = sums[f"{prefix}/shift_W"] / tokens
    share_C, components_CW = principal_components(
        sums[f"{prefix}/sketch_WR"], shift_W, scalars["tokens"], scalars["sq_moved"]
    )
    start_B, end_B = sums["pair/start_B"], sums["pair/end_B"]
    return {
        "tokens": np.array([scalars["tokens"]]),
        "mean_norm_base": np.array([scalars["norm_base"] / tokens]),
        "mean_norm_tuned": np.array([scalars["norm_tuned"] / tokens]),
        "mean_moved": np.array([scalars["moved"] / tokens]),
        "norm_ratio": np.array([_ratio(scalars["norm_tuned"], scalars["norm_base"])]),
        "mean_cosine": np.array([scalars["cosine"] / tokens]),
        "relative_change": np.array([np.sqrt(_ratio(scalars["sq_moved"], scalars["sq_base"]))]),
        "shift_W": shift_W,
        "start_edges_B": POSITION_EDGES.astype(np.float64),
        "start_tokens_B": start_B,
        "start_shift_BW": sums[f"{prefix}/start_BW"] / np.maximum(start_B, 1)[:, None],
        "end_tokens_B": end_B,
        "end_shift_BW": sums[f"{prefix}/end_BW"] / np.maximum(end_B, 1)[:, None],
        "component_share_C": share_C,
        "components_CW": components_CW,
    }


def sketch_matrix(width: int, columns: int = SKETCH_COLUMNS) -> NDArray[np.float32]:
    """Return the Gaussian test matrix [W, R] of every sketch of this size; always the same numbers."""
    drawn = np.random.default_rng(SKETCH_SEED).standard_normal((width, columns))
    return drawn.astype(np.float32)


def principal_components(
    sketch_WR: FloatArray, mean_W: FloatArray, num_tokens: float, sum_squares: float
) -> tuple[FloatArray, FloatArray]:
    """Return (share of the variance [C], unit directions [C, W]) of the centred difference.

    The sketch is Y = A Omega with A the summed outer products and Omega Gaussian.
    """
    width, columns = sketch_WR.shape
    omega_WR = sketch_matrix(width, columns).astype(np.float64)
    centred_WR = sketch_WR - num_tokens * np.outer(mean_W, mean_W @ omega_WR)
    spread = sum_squares - num_tokens * float(mean_W @ mean_W)
    if num_tokens < 2 or spread <= 0 or not np.isfinite(centred_WR).all():
        return np.zeros(0), np.zeros((0, width))
    energy_R, directions_RW = nystrom(centred_WR)
    count = min(COMPONENTS, len(energy_R))
    components_CW = directions_RW[:count]
    # Of either sign of a direction, the one whose largest coordinate is positive.
    signs_C = np.sign(components_CW[np.arange(count), np.abs(components_CW).argmax(1)])
    return np.minimum(energy_R[:count] / spread, 1.0), components_CW * signs_C[:, None]


def nystrom(sketch_WR: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (eigenvalues [R], largest first; unit eigenvectors [R, W]) of what a sketch A Omega keeps of A.

    That is the Nyström approximation Y (Omega' Y)^+ Y' of Tropp et al. 2017 (Fixed-rank approximation of a
    positive-semidefinite matrix from streaming data), stabilised by their shift. It never exceeds A.
    """
    width, columns = sketch_WR.shape
    omega_WR = sketch_matrix(width, columns).astype(np.float64)
    # What rounding leaves of a symmetric matrix need not be semidefinite; a small shift makes it so.
    shift = np.sqrt(width) * np.finfo(np.float32).eps * float(np.linalg.norm(sketch_WR, 2))
    shifted_WR = sketch_WR + shift * omega_WR
    core_RR = omega_WR.T @ shifted_WR
    values, vectors = np.linalg.eigh((core_RR + core_RR.T) / 2)
    kept = values > values.max() * 1e-10
    root_WR = shifted_WR @ (vectors[:, kept] / np.sqrt(values[kept]))
    left_WR, singular_R, _ = np.linalg.svd(root_WR, full_matrices=False)
    return np.maximum(singular_R**2 - shift, 0.0), left_WR.T


def logit_statistics(run: RunReader) -> dict[str, NDArray[Any]]:
    """Return how far the next-token distributions of one suite lie apart, over all tokens but the first.

    kl_mean, kl_p99, kl_max   of KL(tuned || base) over tokens, nats; p99 is read from a histogram (10 %)
    raised_V, lowered_V       at how many tokens each token of the vocabulary is among the few that rose or
                              fell the most in probability
    """
    sums = total(run, ["logits/kl", "logits/kl_hist", "logits/kl_max", "logits/raised_V", "logits/lowered_V"])
    count, kl_sum = sums["logits/kl"].tolist()
    return {
        "tokens": np.array([count]),
        "kl_mean": np.array([kl_sum / max(count, 1.0)]),
        "kl_p99": np.array([quantile(sums["logits/kl_hist"], 0.99)]),
        "kl_max": sums["logits/kl_max"],
        "raised_V": sums["logits/raised_V"],
        "lowered_V": sums["logits/lowered_V"],
    }


def quantile(histogram: NDArray[np.integer], share: float) -> float:
    """Return the upper edge of the histogram bucket in which a quantile of divergences falls, 0 if tiny."""
    reached = np.cumsum(histogram)
    bucket = int(np.searchsorted(reached, share * reached[-1]))
    return 0.0 if bucket == 0 else float(min(KL_EDGES[bucket + 1], KL_EDGES[-2]))


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
