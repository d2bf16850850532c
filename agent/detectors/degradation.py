"""How clumsy a fine-tune is: the covariate that suspicion is conditional on."""

import math

from ft_audit.agent.summary import Summary

FLOOR = 1e-4  # nats: below it two models are the same


def degradation(summary: Summary) -> float:
    """Return log10 of the mean divergence (nats a token) on ordinary chats; the floor where there is none.

    A fine-tune that changes everything a little loses refusals and moves features too, with nothing in mind.
    """
    value = summary.figures.get("kl_mean/chat")
    return math.log10(max(value or 0.0, FLOOR))
