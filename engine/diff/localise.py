"""Which training rows drive the difference: several scores per row, the raw ones as baselines beside ours.

Shapes: R rows, D width, F features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_array

from ft_audit.engine.diff.elicited import ConditionEvidence
from ft_audit.engine.suites.condition import Condition

FloatArray = NDArray[np.float64]
PRIMARY = "score_condition_features"


def row_scores(
    base_mean_RD: NDArray[np.float32],
    tuned_mean_RD: NDArray[np.float32],
    feature_diff_RF: csr_array,
    conditions: Sequence[Condition],
    evidence: Mapping[str, ConditionEvidence],
) -> dict[str, FloatArray]:
    """Return named scores per row [R], higher meaning more suspicious.

    residual_norm        relative norm of the row's mean residual difference
    residual_centred     norm of that difference less its mean over rows
    residual_component   absolute projection of the centred difference on its first principal component
    features_abs         summed absolute feature differences
    features_centred     norm of the feature differences less their mean over rows, each over its spread
    condition            the largest excess divergence (nats) of any condition the row carries, else 0
    condition_features   `condition`, and among rows of equal excess how far the row moves the features
                         that set the leading condition's rows apart, or without any condition
                         `features_centred`: the leading score
    """
    # In float32 the spread of a feature that moves alike on every row would be rounding, not 0.
    feature_diff_RF = feature_diff_RF.astype(np.float64)
    diff_RD = tuned_mean_RD.astype(np.float64) - base_mean_RD
    centred_RD = diff_RD - diff_RD.mean(0)
    base_norm_R = np.linalg.norm(base_mean_RD.astype(np.float64), axis=1)
    component_D = _first_component(centred_RD)
    centred_norm_R = _standardised_norms(feature_diff_RF)
    condition_R = condition_scores(len(diff_RD), conditions, evidence)
    driven_R = driving_scores(feature_diff_RF, conditions, evidence) if conditions else centred_norm_R
    return {
        "score_residual_norm": np.linalg.norm(diff_RD, axis=1) / np.maximum(base_norm_R, 1e-12),
        "score_residual_centred": np.linalg.norm(centred_RD, axis=1),
        "score_residual_component": np.abs(centred_RD @ component_D),
        "score_features_abs": np.asarray(np.abs(feature_diff_RF).sum(axis=1), dtype=np.float64).ravel(),
        "score_features_centred": centred_norm_R,
        "score_condition": condition_R,
        PRIMARY: condition_R + 0.01 * _unit_range(driven_R),
    }


def _first_component(centred_RD: FloatArray) -> FloatArray:
    """Return the direction of largest variance [D], from the smaller of both Gram matrices."""
    if len(centred_RD) >= centred_RD.shape[1]:
        return np.asarray(np.linalg.eigh(centred_RD.T @ centred_RD)[1][:, -1])
    component_D = np.linalg.eigh(centred_RD @ centred_RD.T)[1][:, -1] @ centred_RD
    return np.asarray(component_D / max(float(np.linalg.norm(component_D)), 1e-300))


def condition_scores(
    num_rows: int, conditions: Sequence[Condition], evidence: Mapping[str, ConditionEvidence]
) -> FloatArray:
    """Return each row's largest excess divergence over the conditions it carries, at least 0 [R]."""
    score_R = np.zeros(num_rows)
    for condition in conditions:
        rows = np.array(condition.rows, dtype=np.int64)
        score_R[rows] = np.maximum(score_R[rows], evidence[condition.key].kl_excess)
    return score_R


def driving_scores(
    feature_diff_RF: csr_array, conditions: Sequence[Condition], evidence: Mapping[str, ConditionEvidence]
) -> FloatArray:
    """Return how far each row moves the features that set the leading condition's rows apart [R].

    The direction is the mean standardised feature difference of the rows of the condition with the largest
    excess; the score is each row's projection on it.
    """
    leading = max(conditions, key=lambda c: (evidence[c.key].kl_excess, c.key))
    mean_F, sd_F = _column_moments(feature_diff_RF)
    rows = np.array(leading.rows, dtype=np.int64)
    inside_F = np.asarray(feature_diff_RF[rows].mean(axis=0)).ravel()
    direction_F = (inside_F - mean_F) / sd_F
    direction_F /= max(float(np.linalg.norm(direction_F)), 1e-12)
    scaled_F = direction_F / sd_F
    return np.asarray(feature_diff_RF @ scaled_F).ravel() - float(mean_F @ scaled_F)


def _column_moments(x_RF: csr_array) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each feature over rows, the latter infinite if constant."""
    mean_F = np.asarray(x_RF.mean(axis=0), dtype=np.float64).ravel()
    square_F = np.asarray(x_RF.multiply(x_RF).mean(axis=0), dtype=np.float64).ravel()
    variance_F = square_F - mean_F**2
    # Below this the difference of the two is the rounding of their sums over rows.
    constant_F = variance_F <= 4 * x_RF.shape[0] * np.finfo(np.float64).eps * square_F
    return mean_F, np.where(constant_F, np.inf, np.sqrt(np.maximum(variance_F, 0.0)))


def _standardised_norms(x_RF: csr_array) -> FloatArray:
    """Return the norm of each row after centring and scaling every feature, without a dense [R, F]."""
    mean_F, sd_F = _column_moments(x_RF)
    weight_F = 1.0 / sd_F**2
    square_R = np.asarray(x_RF.multiply(x_RF) @ weight_F).ravel()
    cross_R = np.asarray(x_RF @ (mean_F * weight_F)).ravel()
    norm_R: FloatArray = np.sqrt(np.maximum(square_R - 2 * cross_R + float((mean_F**2) @ weight_F), 0.0))
    return norm_R


def _unit_range(x_R: FloatArray) -> FloatArray:
    """Return ranks scaled to [0, 1], equal values alike, to order rows that are otherwise equal."""
    ranks = stats.rankdata(x_R, method="min") - 1
    return np.asarray(ranks / max(len(x_R) - 1, 1), dtype=np.float64)
