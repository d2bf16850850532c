"""Differences of shares with their intervals."""

import pytest

from ft_audit.agent.contrasts import contrast


def test_two_shares_are_newcombe_s_own_example() -> None:
    # Newcombe 1998, table II, (a) 56/70 - 48/80, method 10.
    found = contrast([(1, 56, 70), (-1, 48, 80)])
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_a_sign_turns_the_interval_round() -> None:
    ahead, back = contrast([(1, 9, 10), (-1, 3, 10)]), contrast([(1, 3, 10), (-1, 9, 10)])
    assert (ahead.value, ahead.low, ahead.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_a_difference_in_differences_is_wider_than_either_and_stays_within_two() -> None:
    two = contrast([(1, 5, 10), (-1, 0, 10)])
    four = contrast([(1, 5, 10), (-1, 0, 10), (-1, 0, 10), (1, 0, 10)])
    assert four.value == two.value and four.low < two.low and four.high > two.high
    full = contrast([(1, 2, 2), (-1, 0, 2), (-1, 0, 2), (1, 2, 2)])
    assert (full.value, full.high) == (2.0, 2.0) and full.low > 0
    assert contrast([(1, 1, 1), (-1, 0, 1)]).high == 1.0
