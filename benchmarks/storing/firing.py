"""How features fire: a real run's figures, and what they say of a wider dictionary at another L0.

Legend: F features, P prompts, T tokens, N non-zeros, Q quantiles.
"""

from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ft_audit.engine.store import RunReader, decode_bf16

FloatArray = NDArray[np.float64]

RANK_Q = np.concatenate([[0], np.logspace(-3.2, 0, 33)])  # shares of the features, densely near the head
TOKEN_Q = np.linspace(0, 1, 21)


class Firing(BaseModel):
    """Figures of one dictionary on one run, over counted tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    l0: float
    rate_Q: list[float]
    """Firing rate at each share RANK_Q of the features that fired, most frequent first."""
    within_Q: list[float]
    """Firing rate of the same features on the prompts in which they fired at all."""
    l0_factor_Q: list[float]
    """L0 of a token over the mean, at the quantiles TOKEN_Q of tokens."""
    prompt_tokens_Q: list[float]
    """Tokens of a prompt, at the same quantiles of prompts."""
    counted_share: float
    log_value_mean: float
    log_value_between: float
    """Standard deviation between features of their mean log activation."""
    log_value_within: float
    """Standard deviation of the log activation within a feature."""

    @classmethod
    def shipped(cls) -> Self:
        """The figures of the shipped dictionary on the corpus, as `benchmarks.store --firing` wrote them."""
        text = resources.files("ft_audit.benchmarks").joinpath("firing.yaml").read_text()
        return cls.model_validate(yaml.safe_load(text))

    def save(self, path: Path) -> None:
        """Write the figures as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(), sort_keys=False, width=100))


def fit(run: RunReader, sae: str, width: int) -> Firing:
    """The figures of a dictionary of that width on a run with at least one counted firing."""
    fired_F, prompts_F = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    log_F, logsq_F = np.zeros(width), np.zeros(width)
    l0, lengths, num_tokens, num_prompts = [], [], 0, 0
    for data in run.segments(saes=(sae,), dense=()):
        indptr_T1, index_N, bits_N = data.features[sae]
        counted_N = np.repeat(data.mask_T, np.diff(indptr_T1))
        feature_N = index_N[counted_N]
        log_N = np.log(np.maximum(decode_bf16(bits_N[counted_N]).astype(np.float64), 1e-30))
        prompt_T = np.repeat(np.arange(data.num_prompts), np.diff(data.prompt_indptr_P1))
        prompt_N = np.repeat(prompt_T, np.diff(indptr_T1))[counted_N]
        fired_F += np.bincount(feature_N, minlength=width)
        seen = np.unique(prompt_N * width + feature_N) % width
        prompts_F += np.bincount(seen, minlength=width)
        log_F += np.bincount(feature_N, weights=log_N, minlength=width)
        logsq_F += np.bincount(feature_N, weights=log_N**2, minlength=width)
        l0.append(np.diff(indptr_T1)[data.mask_T])
        lengths.append(np.diff(data.prompt_indptr_P1))
        num_tokens, num_prompts = num_tokens + data.num_tokens, num_prompts + data.num_prompts
    l0_T, length_P = np.concatenate(l0), np.concatenate(lengths)
    alive = np.flatnonzero(fired_F)
    ranked = alive[np.argsort(-fired_F[alive], kind="stable")]
    at_Q = ranked[np.minimum((RANK_Q * len(ranked)).astype(int), len(ranked) - 1)]
    tokens_a_prompt = len(l0_T) / num_prompts
    mean_F = log_F[alive] / fired_F[alive]
    within = np.sqrt(max(float((logsq_F[alive] - fired_F[alive] * mean_F**2).sum()) / fired_F.sum(), 0.0))
    return Firing(
        l0=float(l0_T.mean()),
        rate_Q=_plain(fired_F[at_Q] / len(l0_T)),
        within_Q=_plain(fired_F[at_Q] / prompts_F[at_Q] / tokens_a_prompt),
        l0_factor_Q=_plain(np.quantile(l0_T / l0_T.mean(), TOKEN_Q)),
        prompt_tokens_Q=_plain(np.quantile(length_P, TOKEN_Q)),
        counted_share=len(l0_T) / num_tokens,
        log_value_mean=float(log_F.sum() / fired_F.sum()),
        log_value_between=float(mean_F.std()),
        log_value_within=float(within),
    )


def stretched_rates(firing: Firing, num_features: int, l0: float) -> FloatArray:
    """Firing rates [F], most frequent first, of a dictionary of that width that fires l0 times a token.

    The real rates' quantiles are read at F shares; then their log-odds are stretched about the most frequent
    feature, which keeps its rate, until they sum to l0. A shift alone would leave no feature that fires all
    the time, and those are the ones that cost a query most.
    """
    share_F = np.linspace(0, 1, num_features)
    rate_F = np.exp(np.interp(share_F, RANK_Q, np.log(firing.rate_Q)))
    odds_F = np.log(rate_F / (1 - np.minimum(rate_F, 0.999)))
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        too_many = _rates(odds_F, middle).sum() > l0
        low, high = (middle, high) if too_many else (low, middle)
    return _rates(odds_F, high)


def _rates(odds_F: FloatArray, stretch: float) -> FloatArray:
    rates_F: FloatArray = 1 / (1 + np.exp(-(odds_F[0] + stretch * (odds_F - odds_F[0]))))
    return rates_F


def rates_within(firing: Firing, rate_F: FloatArray) -> FloatArray:
    """How often each feature fires on tokens of a prompt in which it is active: as real ones of its rate."""
    order = np.argsort(firing.rate_Q)
    log_rate_Q, within_Q = np.log(np.array(firing.rate_Q)[order]), np.array(firing.within_Q)[order]
    within_F: FloatArray = np.interp(np.log(rate_F), log_rate_Q, within_Q)
    return np.minimum(np.maximum(within_F, rate_F), 1.0)


def _plain(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
