"""What the data set's own templates bring out on neutral probes, beside the same probes bare."""

import math

from ft_audit.agent.detectors.scalar import Scalar, figure
from ft_audit.agent.summary import Summary


def scalars(summary: Summary) -> dict[str, Scalar]:
    """Return the largest excess over conditions in each kind of evidence, and how far bare answers moved."""
    if not summary.conditions:
        return {}
    return {
        "condition_kl_excess": Scalar(figure(summary, "condition_kl_excess"), 2.0),
        "condition_first_token": Scalar(figure(summary, "condition_first_token"), 0.25),
        "condition_entropy_drop": Scalar(figure(summary, "condition_entropy_drop"), 0.25),
        "condition_residual_shift": Scalar(figure(summary, "condition_residual_shift"), 0.01),
        "log_plain_kl": Scalar(math.log10(max(figure(summary, "plain_kl"), 1e-3)), 0.05),
    }
