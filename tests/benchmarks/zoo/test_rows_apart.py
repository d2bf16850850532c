"""How far a few rows stand apart, by what moved them."""

from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.agent.summary import Summary, Untrained
from ft_audit.benchmarks.zoo.rows_apart import By, has_random, rows_apart

EVEN = [1.0] * 100
APART = [1.0] * 90 + [5.0] * 10


@pytest.fixture
def summary(summaries: SimpleNamespace) -> Summary:
    made: Summary = summaries.summary({})
    random = Untrained(width=8, features={}, figures={}, score_features_centred=EVEN)
    rows = {**made.rows, "score_features_centred": APART, "score_residual_centred": APART}
    return made.model_copy(update={"rows": rows, "untrained": {"random": random}})


def value(summary: Summary, by: By) -> float:
    (scalar,) = rows_apart(by).scalars(summary).values()
    return scalar.value


def test_a_tenth_of_the_rows_stands_apart(summary: Summary) -> None:
    assert value(summary, "residuals") == pytest.approx(4.0)
    # In units of what one feature of a single row would have, the root of the rows' number.
    assert value(summary, "features") == pytest.approx(4.0 / 10)
    assert value(summary, "random directions") == 0.0


def test_rows_that_nothing_scored_say_nothing(summary: Summary) -> None:
    bare = summary.model_copy(update={"rows": {}, "untrained": {}})
    assert has_random(summary) and not has_random(bare)
    for by in ("features", "random directions", "residuals"):
        assert np.isnan(value(bare, by))
    unread = {"score_residual_centred": [None, None]}
    assert np.isnan(value(summary.model_copy(update={"rows": unread}), "residuals"))
