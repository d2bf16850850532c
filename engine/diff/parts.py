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
    relative = found.diff_norm_P / np.maximum(found.norm_base_P, 1e-12)
    return {
        "residual_shift": float(np.nanmean(relative)),
        "residual_norm_ratio": float(np.nanmean(found.norm_ratio_P)),
    }


def put_fvu(writer: DiffWriter, pair: SuitePair, sae: str, layer: int) -> dict[str, float]:
    """Write `fvu/<sae>/<suite>`: the share of variance that the dictionary leaves unexplained, by side."""
    values = {side: fvu(run, sae, layer) for side, run in (("base", pair.base), ("tuned", pair.tuned))}
    writer.put_stats(f"fvu/{sae}/{pair.name}", {side: np.array([value]) for side, value in values.items()})
    return {"fvu_change": values["tuned"] - values["base"]}


def fvu(run: RunReader, sae: str, layer: int) -> float:
    """Return the summed squared error over the summed squared distance from the mean, over counted tokens."""
    error = float(run.dense(f"sae/{sae}/sq_error_P").astype(np.float64).sum())
    square = float(run.dense(f"sae/{sae}/sq_total_P").astype(np.float64).sum())
    counted_P = run.dense("counted_P").astype(np.float64)
    mean_PD = run.dense(f"resid/{layer}/mean_PD").astype(np.float64)
    total = counted_P.sum()
    if total == 0:
        return float("nan")
    mean_D = (mean_PD * counted_P[:, None]).sum(0) / total
    return float(error / (square - total * float(mean_D @ mean_D)))


def union_of_leading(found: Sequence[SuiteFeatures], top: int) -> list[int]:
    """Return the leading features of several suites of one dictionary, each once, in order of appearance."""
    seen: dict[int, None] = {}
    for features in found:
        seen.update(dict.fromkeys(features.leading(top)))
    return list(seen)
