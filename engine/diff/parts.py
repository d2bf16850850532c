"""The pieces of a diff that come from one suite each: features, residuals, explained variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ft_audit.engine.cluster import Scheduler
from ft_audit.engine.diff.feature_tests import feature_tests
from ft_audit.engine.diff.groups import EVERYTHING, Groups
from ft_audit.engine.diff.moments import Moments, group_moments, stored_moments
from ft_audit.engine.diff.pair_sums import hook_statistics, logit_statistics
from ft_audit.engine.diff.residual import residual_diff
from ft_audit.engine.diff.row_features import row_features, stored_row_features
from ft_audit.engine.store import DiffWriter, HookEntry, RunReader, SaeEntry
from ft_audit.kernels.diff_stats import PairMoments

MAX_Q = 0.05
NOISE_PERCENTILE = 99.9


@dataclass(frozen=True, slots=True)
class SuitePair:
    """The base's and the tuned model's run over one suite, and what was compared while they ran."""

    name: str
    role: str
    base: RunReader
    tuned: RunReader
    together: RunReader
    groups: Groups

    @property
    def has_features(self) -> bool:
        """Whether the features themselves are stored, and not only the pair's statistics."""
        return bool(self.tuned.manifest.sae_names())

    @property
    def has_logits(self) -> bool:
        """Whether the next-token distributions were compared at every token."""
        return "logits/kl" in self.together.stats_names()

    def moments(self, sae: str, scheduler: Scheduler) -> Moments:
        """Return the feature moments of every group."""
        if self.has_features:
            return group_moments(self.base, self.tuned, sae, self.groups, scheduler)
        return stored_moments(self.together, sae, self.groups, scheduler)

    def row_features(self, sae: SaeEntry, scheduler: Scheduler) -> csr_array:
        """Return how each prompt moves each feature [P, F]."""
        if self.has_features:
            return row_features(self.base, self.tuned, sae.name, scheduler)
        return stored_row_features(self.together, sae.name, sae.width)


@dataclass(frozen=True, slots=True)
class SuiteFeatures:
    """The feature tests of one dictionary over one suite, each array [F]."""

    sae: str
    suite: str
    arrays: Mapping[str, NDArray[np.generic]]

    def leading(self, top: int) -> list[int]:
        """Return up to `top` features that pass the tests, largest |z| first."""
        passes_F = self.passes()
        order = np.argsort(-np.abs(np.nan_to_num(np.asarray(self.arrays["z"]))), kind="stable")
        return [int(f) for f in order if passes_F[f]][:top]

    def passes(self) -> NDArray[np.bool_]:
        """Return which features pass the tests: significant, and above the noise floor where there is one."""
        passes_F = np.nan_to_num(np.asarray(self.arrays["q"]), nan=1.0) < MAX_Q
        percentile_F = np.asarray(self.arrays["aa_percentile"])
        if np.isfinite(percentile_F).any():
            passes_F &= np.nan_to_num(percentile_F) >= NOISE_PERCENTILE
        return np.asarray(passes_F)

    @property
    def num_passing(self) -> int:
        """How many features pass the tests."""
        return len(self.leading(len(np.asarray(self.arrays["z"]))))


def put_features(
    writer: DiffWriter, pair: SuitePair, sae: str, control: PairMoments | None, scheduler: Scheduler
) -> SuiteFeatures:
    """Write `features/<sae>/<suite>` and return it; its tags and roles lie under `groups/`."""
    moments = pair.moments(sae, scheduler)
    arrays = _tested(moments[EVERYTHING], control)
    writer.put_stats(f"features/{sae}/{pair.name}", arrays)
    for label, group in moments.items():
        if label != EVERYTHING:
            writer.put_stats(f"groups/{sae}/{pair.name}/{label}", _tested(group, control))
    return SuiteFeatures(sae, pair.name, arrays)


def _tested(moments: PairMoments, control: PairMoments | None) -> dict[str, NDArray[np.generic]]:
    return {**moments.arrays(), **feature_tests(moments, control)}


def put_residuals(writer: DiffWriter, pair: SuitePair, hook: HookEntry) -> dict[str, float]:
    """Write `residual/<hook>/<suite>` and `tokens/<hook>/<suite>` and return their summaries."""
    found = residual_diff(pair.base, pair.tuned, hook.name)
    writer.put_stats(f"residual/{hook.name}/{pair.name}", found.arrays())
    together = hook_statistics(pair.together, hook.name)
    moved = {name: pair.together.dense(f"pair/{hook.name}/{name}") for name in ("moved_P", "moved_max_P")}
    writer.put_stats(f"tokens/{hook.name}/{pair.name}", {**together, **moved})
    relative_P = found.diff_norm_P / np.where(found.norm_base_P > 0, found.norm_base_P, np.nan)
    massive = [float(run.dense("massive_P").sum()) for run in (pair.base, pair.tuned)]
    return {
        "massive_tokens_added": (massive[1] - massive[0]) / max(len(found.norm_base_P), 1),
        "residual_shift": _mean_of_known(relative_P),
        "residual_norm_ratio": _mean_of_known(found.norm_ratio_P),
        "token_change": float(together["relative_change"][0]),
    }


def _mean_of_known(x_P: NDArray[np.float64]) -> float:
    """Return the mean over prompts that have a value (those with a counted token), NaN if none has."""
    known_P = x_P[np.isfinite(x_P)]
    return float(known_P.mean()) if len(known_P) else float("nan")


def put_logits(writer: DiffWriter, pair: SuitePair) -> dict[str, float]:
    """Write `logits/<suite>` and return its summaries; nothing where no distributions were compared."""
    if not pair.has_logits:
        return {}
    found = logit_statistics(pair.together)
    names = (
        "kl_sum_P",
        "kl_max_P",
        "loss_base_P",
        "loss_tuned_P",
        "answer_loss_base_P",
        "answer_loss_tuned_P",
    )
    per_prompt = {name: pair.together.dense(f"logits/{name}") for name in (*names, "answer_tokens_P")}
    writer.put_stats(f"logits/{pair.name}", {**found, **per_prompt})
    return {name: float(found[name][0]) for name in ("kl_mean", "kl_p99", "kl_max")}


def put_fvu(writer: DiffWriter, pair: SuitePair, sae: str, hooks: Sequence[str]) -> dict[str, float]:
    """Write `fvu/<sae>/<suite>`: what the dictionary leaves unexplained, by side, and return its changes.

    Of the variance at `hooks`, which it reconstructs, a share; and of the reconstruction error the mean norm
    per token, whose change is given as a share of the base's.
    """
    runs = {"base": pair.base, "tuned": pair.tuned}
    values = {side: fvu(run, sae, hooks) for side, run in runs.items()}
    errors = {side: _error_norm(run, sae) for side, run in runs.items()}
    arrays = {side: np.array([value]) for side, value in values.items()}
    writer.put_stats(
        f"fvu/{sae}/{pair.name}", arrays | {f"error_norm_{s}": np.array([e]) for s, e in errors.items()}
    )
    change = errors["tuned"] / errors["base"] - 1 if errors["base"] else float("nan")
    return {"fvu_change": values["tuned"] - values["base"], "error_norm_change": change}


def _error_norm(run: RunReader, sae: str) -> float:
    """Return the mean norm of the reconstruction error over counted tokens."""
    total = float(run.dense(f"sae/{sae}/error_norm_P").astype(np.float64).sum())
    return total / max(int(run.dense("counted_P").sum()), 1)


def fvu(run: RunReader, sae: str, hooks: Sequence[str]) -> float:
    """Return the summed squared error over the summed squared distance from the mean, over counted tokens.

    NaN where the tokens have no spread, as a single one.
    """
    error = float(run.dense(f"sae/{sae}/sq_error_P").astype(np.float64).sum())
    square = float(run.dense(f"sae/{sae}/sq_total_P").astype(np.float64).sum())
    counted_P = run.dense("counted_P").astype(np.float64)
    mean_PD = np.concatenate([run.dense(f"{hook}/mean_PD") for hook in hooks], axis=1).astype(np.float64)
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
