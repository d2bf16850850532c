"""The codec: an encoding as a list of declared steps, which writes probes in it and reads answers back.

A codec is data. It may come from a file and its text from a hostile data set, so every step is one of a fixed
set, takes time in proportion to its text, and neither text nor result grows beyond a limit.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ft_audit.engine.requests.steps import Case, Hide, Join, Reverse, Rotate, Substitute, Write
from ft_audit.errors import DataError

MAX_CHARS = 200_000  # of a text before and after each step
MAX_STEPS = 8

AnyStep = Annotated[Substitute | Join | Case | Reverse | Rotate | Write | Hide, Field(discriminator="step")]


class Codec(BaseModel):
    """An encoding, and its way back, step by step; no steps leave the text as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[AnyStep, ...] = Field((), max_length=MAX_STEPS, description="In the order of encoding.")

    def encode(self, text: str) -> str:
        """Return the plain text in the encoding.

        Raises:
            DataError: the text, or what a step makes of it, is over the limit.
        """
        for step in self.steps:
            text = step.encode(_within(text))
        return _within(text)

    def decode(self, text: str) -> str:
        """Return what a text in the encoding says.

        Raises:
            DataError: the text is not so encoded, or over the limit.
        """
        for step in reversed(self.steps):
            text = step.decode(_within(text))
        return _within(text)

    def decodes(self, text: str) -> str | None:
        """Return what the text says, or None where it is not so encoded."""
        try:
            return self.decode(text)
        except DataError:
            return None

    def describe(self) -> str:
        """Return the steps on one line, in the order of encoding: `lower case, substitute 24 characters`."""
        return ", ".join(_named(step) for step in self.steps) or "as it is"


def _within(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise DataError(
            f"a text of {len(text):,} characters is over the codec's limit of {MAX_CHARS:,}; cut it"
        )
    return text


def _named(step: AnyStep) -> str:
    match step:
        case Substitute():
            return f"substitute {len(step.mapping)} characters"
        case Join():
            return f"join with {step.separator!r}"
        case Case():
            return f"{step.to} case"
        case Reverse():
            return f"reverse the {step.unit}"
        case Rotate():
            return f"rotate by {step.shift}"
        case Write():
            return f"write as {step.alphabet}"
        case Hide():
            by_word = f"every {step.period} words from {step.offset + 1}"
            return f"hide at {by_word if step.place == 'nth_word' else step.place}"
