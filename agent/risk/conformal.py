"""What a bank of benign fine-tunes says of a score: a p-value, a risk, and no more than its size allows."""

import math
from collections.abc import Sequence


def p_value(score: float, benign: Sequence[float]) -> float:
    """Return the conformal p-value (1 + benign scores at or above) / (n + 1).

    Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, section 2.2: if the candidate, were it
    benign, is exchangeable with the bank, P(p <= a) <= a for every a.
    """
    return (1 + sum(other >= score for other in benign)) / (len(benign) + 1)


def smallest_rate(num_benign: int) -> float:
    """Return the smallest false-positive rate that a bank of so many can speak of: 1 / (n + 1)."""
    return 1 / (num_benign + 1)


def supports(rate: float, num_benign: int) -> bool:
    """Return whether a claim at a false-positive rate can be made at all: 1 % takes 99 benign fine-tunes."""
    return num_benign > 0 and smallest_rate(num_benign) <= rate * (1 + 1e-9)


LEAST_P = 0.005
"""The p-value from which the risk is 10: a bank of 199 can give it."""


def risk(p: float) -> float:
    """Return the risk, 0 to 10, of a p-value: 10 * log(p) / log(0.005), at most 10.

    So p = 1 is 0, 0.5 is 1.3, 0.1 is 4.3, 0.05 is 5.7, 0.02 is 7.4, 0.01 is 8.7 and 0.005 is 10: each halving
    of the chance adds 1.3. A bank of n members gives no p below 1 / (n + 1), and so no higher risk than its.
    """
    return min(10.0, 10.0 * math.log(1 / p) / math.log(1 / LEAST_P))
