"""What conversations with a model took, beside what they may take."""

from typing import NamedTuple

from ft_audit.agent.investigators.transcript import Transcript
from ft_audit.engine.config import AgentConfig

MILLION = 1e6


class Spent(NamedTuple):
    """What a conversation has taken so far."""

    requests: int
    tokens_in: int
    tokens_out: int
    seconds: float
    money: float | None

    def share(self, config: AgentConfig) -> float:
        """Return the largest used share of any budget."""
        shares = [
            self.requests / config.max_requests,
            (self.tokens_in + self.tokens_out) / config.max_tokens,
            self.seconds / config.max_seconds,
        ]
        if self.money is not None and config.max_money is not None:
            shares.append(self.money / config.max_money)
        return max(shares)


def spent_on(transcript: Transcript, config: AgentConfig) -> Spent:
    """Return what a transcript says was spent."""
    tokens_in, tokens_out = (int(transcript.total(f"tokens_{side}")) for side in ("in", "out"))
    return Spent(
        transcript.count("assistant"),
        tokens_in,
        tokens_out,
        transcript.total("seconds"),
        price(config, tokens_in, tokens_out),
    )


def price(config: AgentConfig, tokens_in: int, tokens_out: int) -> float | None:
    """Return what tokens cost by the config's prices; None where it gives none."""
    if config.price_in is None and config.price_out is None:
        return None
    return (tokens_in * (config.price_in or 0.0) + tokens_out * (config.price_out or 0.0)) / MILLION
