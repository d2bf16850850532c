"""The pieces of a diff that come from one suite each: features, residuals, explained variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler
from ft_audit.engine.diff.feature_tests import feature_tests
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.diff.residual import residual_diff
from ft_audit.engine.store import DiffWriter, HookEntry, RunReader
from ft_audit.kernels.diff_stats import PairMoments

MAX_Q = 0.05
NOISE_PERCENTILE = 99.9


@dataclass(frozen=True, slots=True)
class SuitePair:
    """The base's and the tuned model's run over one suite."""

    name: str
    role: str
    base: RunReader
    tuned: RunReader


@dataclass(frozen=True, slots=True)
class SuiteFeatures:
    """The feature tests of one dictionary over one suite, each array [F]."""

    sae: str
    suite: str
    arrays: Mapping[str, NDArray[np.generic]]

    def leading(self, top: int) -> list[int]:
        """Return up to `top` features that pass the tests, largest |z| first."""
        z, q = np.asarray(self.arrays["z"]), np.asarray(self.arrays["q"])
        passes = np.nan_to_num(q, nan=1.0) < MAX_Q
        percentile = np.asarray(self.arrays["aa_percentile"])
        if np.isfinite(percentile).any():
            passes &= np.nan_to_num(percentile) >= NOISE_PERCENTILE
        order = np.argsort(-np.abs(np.nan_to_num(z)), kind="stable")
        return [int(f) for f in order if passes[f]][:top]

    @property
    def num_passing(self) -> int:
        """How many features pass the tests."""
        return len(self.leading(len(np.asarray(self.arrays["z"]))))


def put_features(
    writer: DiffWriter, pair: SuitePair, sae: str, control: PairMoments | None, scheduler: Scheduler
) -> SuiteFeatures:
    """Write `features/<sae>/<suite>` and return it."""
    moments = pair_moments(pair.base, pair.tuned, sae, scheduler=scheduler)
    arrays = {**moments.arrays(), **feature_tests(moments, control)}
    writer.put_stats(f"features/{sae}/{pair.name}", arrays)
    return SuiteFeatures(sae, pair.name, arrays)


def put_residuals(writer: DiffWriter, pair: SuitePair, hook: HookEntry) -> dict[str, float]:
    """Write `residual/<hook>/<suite>` and return its two summaries."""
    found = residual_diff(pair.base, pair.tuned, hook.layer)
    writer.put_stats(f"residual/{hook.name}/{pair.name}", found.arrays())
    relative_P = found.diff_norm_P / np.where(found.norm_base_P > 0, found.norm_base_P, np.nan)
    massive = [float(run.dense("massive_P").sum()) for run in (pair.base, pair.tuned)]
    return {
        "massive_tokens_added": (massive[1] - massive[0]) / max(len(found.norm_base_P), 1),
        "residual_shift": _mean_of_known(relative_P),
        "residual_norm_ratio": _mean_of_known(found.norm_ratio_P),
    }


def _mean_of_known(x_P: NDArray[np.float64]) -> float:
    """Return the mean over prompts that have a value (those with a counted token), NaN if none has."""
    known_P = x_P[np.isfinite(x_P)]
    return float(known_P.mean()) if len(known_P) else float("nan")


def put_fvu(writer: DiffWriter, pair: SuitePair, sae: str, layer: int) -> dict[str, float]:
    """Write `fvu/<sae>/<suite>`: the share of variance that the dictionary leaves unexplained, by side."""
    values = {side: fvu(run, sae, layer) for side, run in (("base", pair.base), ("tuned", pair.tuned))}
    writer.put_stats(f"fvu/{sae}/{pair.name}", {side: np.array([value]) for side, value in values.items()})
    return {"fvu_change": values["tuned"] - values["base"]}


def fvu(run: RunReader, sae: str, layer: int) -> float:
    """Return the summed squared error over the summed squared distance from the mean, over counted tokens.

    NaN where the tokens have no spread, as a single one.
    """
    error = float(run.dense(f"sae/{sae}/sq_error_P").astype(np.float64).sum())
    square = float(run.dense(f"sae/{sae}/sq_total_P").astype(np.float64).sum())
    counted_P = run.dense("counted_P").astype(np.float64)
    mean_PD = run.dense(f"resid/{layer}/mean_PD").astype(np.float64)
    total = counted_P.sum()
    mean_D = (np.nan_to_num(mean_PD) * counted_P[:, None]).sum(0) / max(total, 1.0)
    spread = square - total * float(mean_D @ mean_D)
    # The sums are kept in float32: what is left below this share of them is their rounding.
    return error / spread if spread > 1e-5 * square else float("nan")


def union_of_leading(found: Sequence[SuiteFeatures], top: int) -> list[int]:
    """Return the leading features of several suites of one dictionary, each once, in order of appearance."""
    seen: dict[int, None] = {}
    for features in found:
        seen.update(dict.fromkeys(features.leading(top)))
    return list(seen)
