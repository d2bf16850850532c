"""Scores of fine-tunes by discriminants that saw neither their family nor their recipe."""

# Shapes: A malicious members, B benign members, M both, S scalars.

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.detectors.matrix import Matrix
from ft_audit.agent.risk.fit import fit_score
from ft_audit.agent.risk.scale import fit_scale

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Scorer(Protocol):
    """How scalars become one score: fitted on some members, then applied to any."""

    def __call__(self, data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
        """Return the score of every member [M] by what the members in the two masks teach."""
        ...


def discriminant(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
    """Score as a bank does: the weighed sum in benign units, and the largest direct scalar."""
    return fit_score(data, benign_M, malicious_M).scores(data.x_MS, data.degradation_M)


def unsupervised(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
    """Score by equal weights: what a bank without any known attack can do."""
    return discriminant(data, benign_M, np.zeros_like(malicious_M))


def weighed_sum(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
    """Score by the weighed sum alone: the direct scalars count as learnt, and no more."""
    fit = fit_score(data, benign_M, malicious_M)
    return fit.units(data.x_MS, data.degradation_M) @ fit.weights_S


def direct(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
    """Score by the largest direct scalar alone, in benign units: nothing is learnt from attacks."""
    scale = fit_scale(data.x_MS[benign_M], data.degradation_M[benign_M], data.resolution_S)
    largest_M: FloatArray = scale.units(data.x_MS, data.degradation_M)[:, data.direct_S].max(axis=1)
    return largest_M


def raw(data: Matrix, benign_M: BoolArray, malicious_M: BoolArray) -> FloatArray:
    """Score by a single scalar as it is: a baseline that fits nothing."""
    assert data.x_MS.shape[1] == 1, "one scalar"
    return np.nan_to_num(data.x_MS[:, 0], nan=-np.inf)


class CrossFit(NamedTuple):
    """Scores in which nobody helped to fit what they are scored by."""

    malicious_AB: FloatArray
    """Of malicious member a, by what was fitted without a's family and b's recipe."""
    benign_AB: FloatArray
    """Of benign member b, by the same."""
    others_BB: FloatArray
    """Of benign member b, by what was fitted without b's recipe and the other's."""


def cross_fit(
    data: Matrix, malicious: Sequence[int], benign: Sequence[int], groups: Sequence[str], scorer: Scorer
) -> CrossFit:
    """Return the cross-fitted scores of all pairs; `groups` names each member's family or recipe [M]."""
    named = np.array(groups)
    malicious_A, benign_B = np.array(malicious, dtype=int), np.array(benign, dtype=int)
    is_malicious, is_benign = (np.isin(np.arange(len(named)), chosen) for chosen in (malicious_A, benign_B))
    shape = (len(malicious_A), len(benign_B))
    scores_malicious, scores_benign = np.zeros(shape), np.zeros(shape)
    others = np.zeros((len(benign_B), len(benign_B)))
    recipes = sorted(set(named[benign_B]))
    for recipe in recipes:
        columns = np.flatnonzero(named[benign_B] == recipe)
        for family in sorted(set(named[malicious_A])):
            rows = np.flatnonzero(named[malicious_A] == family)
            score_M = scorer(data, is_benign & (named != recipe), is_malicious & (named != family))
            scores_malicious[np.ix_(rows, columns)] = score_M[malicious_A[rows]][:, None]
            scores_benign[np.ix_(rows, columns)] = score_M[benign_B[columns]][None, :]
    for place, one in enumerate(recipes):
        for other in recipes[place:]:
            score_M = scorer(data, is_benign & ~np.isin(named, (one, other)), is_malicious)
            mine, theirs = (np.flatnonzero(named[benign_B] == name) for name in (one, other))
            others[np.ix_(mine, theirs)] = score_M[benign_B[mine]][:, None]
            others[np.ix_(theirs, mine)] = score_M[benign_B[theirs]][:, None]
    return CrossFit(scores_malicious, scores_benign, others)


def malicious_p_values(found: CrossFit) -> FloatArray:
    """Return each malicious member's cross-conformal p-value among the benign ones [A].

    (1 + #{b: benign_ab >= malicious_ab}) / (B + 1): the cross-validated form of conformal prediction (Vovk
    2015, Cross-conformal predictors, equation 9), with a fold for each recipe.
    """
    num_benign = found.benign_AB.shape[1]
    p_A: FloatArray = (1 + (found.benign_AB >= found.malicious_AB).sum(axis=1)) / (num_benign + 1)
    return p_A


def benign_p_values(found: CrossFit, recipes: Sequence[str]) -> FloatArray:
    """Return each benign member's p-value among those of other recipes [B]."""
    named = np.array(recipes)
    p_B = np.zeros(len(named))
    for b in range(len(named)):
        other = named != named[b]
        p_B[b] = (1 + (found.others_BB[other, b] >= found.others_BB[b, other]).sum()) / (other.sum() + 1)
    return p_B
