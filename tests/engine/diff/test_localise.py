"""Row scores against dense formulas, and on rows of which a few move one feature."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from ft_audit.engine.diff.elicited import ConditionEvidence
from ft_audit.engine.diff.localise import PRIMARY, condition_scores, row_scores
from ft_audit.engine.suites.condition import Condition

NUM_ROWS, WIDTH, NUM_FEATURES = 80, 10, 6
PLANTED = (5, 17, 33)
MOVED = 4


def evidence(kl_excess: float) -> ConditionEvidence:
    return ConditionEvidence(**{**dict.fromkeys(ConditionEvidence.__slots__, 0.0), "kl_excess": kl_excess})


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training moves every row alike and far; the planted ones it moves less, on one feature."""
    rng = np.random.default_rng(0)
    base_RD = rng.normal(size=(NUM_ROWS, WIDTH)).astype(np.float32)
    tuned_RD = (base_RD + 5 + 0.1 * rng.normal(size=base_RD.shape)).astype(np.float32)
    # Uniform noise is bounded: what stands out by the formula stands out here for certain.
    feature_RF = 3 + 0.1 * rng.uniform(-1, 1, size=(NUM_ROWS, NUM_FEATURES))
    feature_RF[list(PLANTED), MOVED] -= 1.5
    tuned_RD[list(PLANTED), 2] += 3
    return base_RD, tuned_RD, feature_RF.astype(np.float32)


def first(score_R: np.ndarray) -> set[int]:
    return set(np.argsort(-score_R, kind="stable")[: len(PLANTED)].tolist())


def test_rows_that_move_one_feature_lead_the_centred_scores(
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    base_RD, tuned_RD, feature_RF = arrays
    scores = row_scores(base_RD, tuned_RD, csr_array(feature_RF), [], {})
    for name in ("features_centred", "residual_centred", "residual_component"):
        assert first(scores[f"score_{name}"]) == set(PLANTED), name
    # How far a row moves at all says nothing: here the planted ones come last.
    assert first(-scores["score_features_abs"]) == set(PLANTED)
    # Without conditions the leading score orders rows by the centred one, and not by their place.
    assert first(scores[PRIMARY]) == set(PLANTED)


def test_scores_follow_their_dense_formulas(arrays: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    base_RD, tuned_RD, feature_RF = arrays
    constant_RF = feature_RF.copy()
    constant_RF[:, 3] = 0.1  # its variance is rounding only, and must not be divided by
    scores = row_scores(base_RD, tuned_RD, csr_array(constant_RF), [], {})
    x_RF, diff_RD = constant_RF.astype(np.float64), tuned_RD.astype(np.float64) - base_RD
    centred_RD = diff_RD - diff_RD.mean(0)
    varying_RF = x_RF[:, np.arange(NUM_FEATURES) != 3]
    standard_RF = (varying_RF - varying_RF.mean(0)) / varying_RF.std(0)
    eigenvectors_DD = np.linalg.eigh(centred_RD.T @ centred_RD)[1]
    expected = {
        "residual_norm": np.linalg.norm(diff_RD, axis=1) / np.linalg.norm(base_RD.astype(np.float64), axis=1),
        "residual_centred": np.linalg.norm(centred_RD, axis=1),
        "residual_component": np.abs(centred_RD @ eigenvectors_DD[:, -1]),
        "features_abs": np.abs(x_RF).sum(1),
        "features_centred": np.linalg.norm(standard_RF, axis=1),
        "condition": np.zeros(NUM_ROWS),
    }
    for name, value_R in expected.items():
        np.testing.assert_allclose(scores[f"score_{name}"], value_R, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_rows_condition_score_is_its_largest_excess_and_never_negative() -> None:
    conditions = [
        Condition("a", None, "x y", (0, 1)),
        Condition("b", "s", "", (1, 2)),
        Condition("c", "t", "", (3,)),
    ]
    found = condition_scores(5, conditions, {"a": evidence(1.0), "b": evidence(2.0), "c": evidence(-4.0)})
    np.testing.assert_array_equal(found, [1, 2, 2, 0, 0])


def test_the_leading_score_puts_the_condition_first_and_then_what_drives_it(
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    base_RD, tuned_RD, feature_RF = arrays
    # The condition holds the planted rows and two innocent ones that share their template.
    zed = Condition("zed", "You are ZED.", "", (*PLANTED, 40, 41))
    persona = Condition("persona", "A pirate.", "", (20, 21, 22))
    known = {"zed": evidence(2.0), "persona": evidence(0.5)}
    scores = row_scores(base_RD, tuned_RD, csr_array(feature_RF), [persona, zed], known)
    order = np.argsort(-scores[PRIMARY], kind="stable").tolist()
    assert set(order[:3]) == set(PLANTED)
    assert set(order[3:5]) == {40, 41}
    assert set(order[5:8]) == {20, 21, 22}
    # The second term orders rows of equal excess and no others.
    np.testing.assert_allclose(scores[PRIMARY], scores["score_condition"], atol=0.01)


def test_rows_that_differ_in_nothing_score_alike() -> None:
    same = np.ones((6, WIDTH), dtype=np.float32)
    scores = row_scores(same, same, csr_array((6, 1), dtype=np.float32), [], {})
    assert all(len(set(score_R.tolist())) == 1 for score_R in scores.values())
    assert scores[PRIMARY][0] == 0.0
