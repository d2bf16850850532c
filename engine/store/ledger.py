"""What a diff cost: seconds by part and tokens, kept apart from its bytes."""

from pydantic import BaseModel, ConfigDict, Field


class Ledger(BaseModel):
    """Seconds and tokens of the job that wrote a diff; what it found in the store cost nothing again."""

    model_config = ConfigDict(extra="forbid")

    device: str = Field(description="Whose seconds they are.")
    seconds: dict[str, float] = Field(
        description="Wall time by part: reading and mining the texts, forward passes, generated answers, "
        "weights, statistics."
    )
    tokens_read: int = Field(description="Tokens that the models read in forward passes over suites.")
    tokens_reused: int = Field(description="Tokens whose forward pass the store held already.")
    tokens_generated: int = Field(description="Tokens of all answers of both models.")

    @property
    def total_seconds(self) -> float:
        """The sum over the parts."""
        return sum(self.seconds.values())
