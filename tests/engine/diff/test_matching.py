"""The nearest feature of another dictionary, against the whole matrix of cosines."""

import numpy as np
import pytest

from ft_audit.engine.diff import chunks
from ft_audit.engine.diff.matching import match_features, nearest


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.fixture(params=[60, 1 << 22])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions looked at together: a few, or all."""
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", request.param)


@pytest.mark.usefixtures("chunk")
def test_the_nearest_is_that_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(1)
    query, directions = (rng.normal(size=(n, 12)).astype(np.float32) for n in (9, 50))
    directions *= rng.uniform(0.1, 9, size=(50, 1)).astype(np.float32)  # lengths must not count
    index, cosine = nearest(query, directions)
    whole = unit(query.astype(float)) @ unit(directions.astype(float)).T
    assert index.tolist() == whole.argmax(1).tolist()
    np.testing.assert_allclose(cosine, whole.max(1), atol=1e-12)


@pytest.mark.usefixtures("chunk")
def test_of_equals_the_first_and_nothing_is_near_a_dead_feature() -> None:
    directions = np.zeros((40, 4))
    directions[[5, 30], 0] = 1.0
    index, cosine = nearest(np.array([[2.0, 0, 0, 0], [0, 0, 0, 0]]), directions)
    assert index[0] == 5 and cosine[0] == 1.0 and cosine[1] == 0.0


@pytest.mark.usefixtures("chunk")
def test_a_shared_direction_matches_both_ways_and_a_split_one_only_once() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = unit(rng.normal(size=(30, 16))), unit(rng.normal(size=(45, 16)))
    theirs[33] = 3 * ours[4]
    # Two of ours lie near one of theirs: only the nearer is its match in turn.
    ours[10] = unit(ours[[9]] + 0.1 * rng.normal(size=(1, 16)))
    theirs[2] = ours[9]
    found = match_features([4, 9, 10], ours, theirs)
    assert found.match_N.tolist() == [33, 2, 2]
    assert found.mutual_N.tolist() == [True, True, False]
    np.testing.assert_allclose(found.cosine_N[:2], 1.0)
    assert found.cosine_N[2] == pytest.approx(float(ours[9] @ ours[10]))
