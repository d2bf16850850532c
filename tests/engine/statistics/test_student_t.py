"""Student's t beside scipy's."""

import numpy as np
import pytest
from scipy import stats

from ft_audit.engine.statistics.student_t import two_sided_p, upper_point

FREEDOM = np.array([1.0, 1.5, 2.0, 2.7, 3.0, 4.0, 5.9, 6.0, 7.5, 15.0, 30.0, 200.0, 1e5])


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, -1.0, 1.96, -5.0, 40.0, 1e4])
def test_tails(t: float) -> None:
    found = two_sided_p(np.full(len(FREEDOM), t), FREEDOM)
    np.testing.assert_allclose(found, 2 * stats.t.sf(abs(t), FREEDOM), rtol=1e-9, atol=1e-300)


def test_the_upper_point() -> None:
    np.testing.assert_allclose(upper_point(FREEDOM), stats.t.ppf(0.975, FREEDOM), rtol=2e-5)
    assert upper_point(np.array(3.0)).shape == () and upper_point(np.array(9.0)) == pytest.approx(
        2.262, abs=1e-3
    )


def test_what_is_unknown_stays_unknown() -> None:
    found = two_sided_p(np.array([np.nan, 1.0]), np.array([5.0, 5.0]))
    assert np.isnan(found[0]) and 0 < found[1] < 1
