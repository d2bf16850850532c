"""What an audit cost: the ledger of its evidence, with a price where the config gives one."""

from pydantic import BaseModel, ConfigDict, Field

from ft_audit.engine.store import Ledger

HOUR = 3600.0


class Cost(BaseModel):
    """Seconds, tokens and money that the evidence took; reading it for a verdict adds about a second."""

    model_config = ConfigDict(extra="forbid")

    device: str = Field(description="What the models ran on.")
    seconds: dict[str, float] = Field(
        description="Wall time by part: `texts`, `forward`, `answers`, `weights`, `statistics`."
    )
    total_seconds: float = Field(description="Their sum.")
    tokens_read: int = Field(description="Tokens that the models read in forward passes over suites.")
    tokens_reused: int = Field(description="Tokens whose forward pass was in the store already.")
    tokens_generated: int = Field(description="Tokens of all answers of both models.")
    money: float | None = Field(
        description="Hours times the config's price of one, in its currency; null without a price."
    )


def cost_of(ledger: Ledger | None, price_per_hour: float | None) -> Cost | None:
    """Return the cost of evidence; None where it was not counted."""
    if ledger is None:
        return None
    total = ledger.total_seconds
    return Cost(
        **ledger.model_dump(),
        total_seconds=round(total, 3),
        money=None if price_per_hour is None else round(total / HOUR * price_per_hour, 6),
    )


def cost_words(cost: Cost | None) -> str:
    """The cost on one line."""
    if cost is None:
        return "not counted"
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in cost.seconds.items())
    said = (
        f"{cost.total_seconds:.0f} s on {cost.device} ({parts}); {cost.tokens_read:,} tokens read, "
        f"{cost.tokens_reused:,} reused, {cost.tokens_generated:,} generated"
    )
    return said if cost.money is None else f"{said}; {cost.money:.4f} at the price of the machine's hour"
