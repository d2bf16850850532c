"""Where a feature fired most in one prompt: the strongest token and what is around it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """A prompt's strongest activation of one feature and the tokens within the window around it.

    `position` is the peak's place in its prompt, from 0. A token that does not count has activation 0.
    """

    prompt: int
    position: int
    peak: float
    tokens: tuple[int, ...]
    activations: tuple[float, ...]

    @property
    def strength(self) -> tuple[float, int, int]:
        """The sort key: strongest first, ties in the order of the suite."""
        return -self.peak, self.prompt, self.position
