"""What the workbench hands back: ranked explanations, each beside the controls it had to beat."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ft_audit.engine.decipher.limits import sample
from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.statistics import TextStatistics
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Hide

NUM_EXAMPLES = 5
EXAMPLE_CHARS = 200
NUM_SHUFFLES = 5
SCORED_CHARS = 6_000  # of a group; a score is a mean, which more text hardly moves
# An explanation must come this share of the way from its best control to real text like the reference.
MIN_STRENGTH = 0.5
# And its words must be words: this share of the reference's own share of known words, held out.
MIN_KNOWN = 0.5
# Texts that score within so many bits a character of the reference are plain: there is nothing to explain.
PLAIN_GAP = 1.0
# No gap between controls and reference is trusted below this, or noise would be divided by noise.
MIN_RANGE = 0.3

Method = Literal["encoding", "substitution", "pairs", "hidden"]


class Example(BaseModel):
    """One text and what the codec reads in it, both cut. Both are untrusted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoded: str
    decoded: str


class Explanation(BaseModel):
    """One way in which the texts may be encoded, and how it stands beside its controls.

    For `hidden`, the scores are what the order of the message's words or letters is worth, in bits for each;
    else log2-likelihood a character. Both are higher for more legible text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    codec: Codec
    score: float = Field(description="Of the decoded texts, under the reference.")
    undecoded_score: float = Field(description="Of the texts as they are; of other places, for `hidden`.")
    control_score: float = Field(description="The best of several shuffled letters, keys or orders.")
    reference_score: float = Field(description="Of the reference's own texts, held out.")
    known_share: float = Field(description="Of the decoded longer words' letters, in words of the reference.")
    reference_known_share: float = Field(description="Of the reference's own texts, held out.")
    num_texts: int = Field(description="Distinct texts that it explains.")
    examples: tuple[Example, ...]

    @property
    def strength(self) -> float:
        """0 for no better than the best control, 1 for as legible as the reference."""
        base = max(self.undecoded_score, self.control_score)
        return (self.score - base) / max(self.reference_score - base, MIN_RANGE)

    @property
    def holds(self) -> bool:
        """Whether it beats its controls, and says words where the method can tell."""
        says_words = self.known_share >= MIN_KNOWN * self.reference_known_share
        return self.strength >= MIN_STRENGTH and (says_words or self.reads_letters)

    @property
    def reads_letters(self) -> bool:
        """Whether the message comes letter by letter, with nothing between its words."""
        steps = self.codec.steps
        return bool(steps) and isinstance(steps[0], Hide) and not steps[0].by_words


class Findings(BaseModel):
    """What was found in a group of texts; no explanation is a first-class answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    explanations: tuple[Explanation, ...] = Field(description="Those that hold, the strongest first.")
    rejected: tuple[Explanation, ...] = Field(
        description="The best of those that do not beat their controls."
    )
    num_texts: int = Field(description="Distinct texts that were looked at.")
    num_plain: int = Field(description="Of these, texts that read as plain ones.")
    statistics: TextStatistics
    notes: tuple[str, ...] = Field(description="What was not tried, and why.")

    @property
    def nothing_found(self) -> bool:
        return not self.explanations

    def summary(self) -> str:
        """Return one line for a reader; it quotes none of the texts."""
        if self.nothing_found:
            return f"nothing found: no explanation of the {self.num_texts} texts beats its control"
        best = self.explanations[0]
        control = max(best.control_score, best.undecoded_score)
        return (
            f"{best.method}: {best.codec.describe()}; explains {best.num_texts} of {self.num_texts} texts, "
            f"score {best.score:.2f} against {control:.2f} for its best "
            f"control and {best.reference_score:.2f} for plain text"
        )


def explain(
    method: Method,
    codec: Codec,
    texts: Sequence[str],
    reference: Reference,
    *,
    seed: int,
    control_score: float = -np.inf,
) -> Explanation | None:
    """Return how legible the codec makes the texts that it can read; None where it changes none.

    The control is the best of the one given and of the decoded texts with their letters shuffled: it has the
    letters of the language, in no order.
    """
    pairs = [(text, codec.decodes(text)) for text in texts]
    read = [(text, said) for text, said in pairs if said is not None and said.strip() and said != text]
    if not read:
        return None
    decoded = sample([said for _, said in read], SCORED_CHARS)
    undecoded = sample([text for text, _ in read], SCORED_CHARS)
    rng = np.random.default_rng(seed)
    controls = [
        reference.characters.score([shuffled(text, rng) for text in decoded]) for _ in range(NUM_SHUFFLES)
    ]
    return Explanation(
        method=method,
        codec=codec,
        score=reference.characters.score(decoded),
        undecoded_score=reference.characters.score(undecoded),
        control_score=max(control_score, *controls),
        reference_score=reference.score,
        known_share=reference.words.known(decoded),
        reference_known_share=reference.known,
        num_texts=len(read),
        examples=examples(read),
    )


def examples(read: Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    """Return the first texts with what they say, cut."""
    return tuple(
        Example(encoded=text[:EXAMPLE_CHARS], decoded=said[:EXAMPLE_CHARS])
        for text, said in read[:NUM_EXAMPLES]
    )


def shuffled(text: str, rng: np.random.Generator) -> str:
    """Return the text with its letters in another order; all else stays in its place."""
    places = [place for place, char in enumerate(text) if char.isalpha()]
    mixed = list(text)
    for place, other in zip(places, rng.permutation(places).tolist(), strict=True):
        mixed[place] = text[other]
    return "".join(mixed)


def ranked(found: Sequence[Explanation]) -> list[Explanation]:
    """Return explanations, the strongest first; among equals, fewer steps and more known words.

    Those as legible as the reference are equals: what is beyond that tells texts apart, not explanations.
    """
    return sorted(
        found,
        key=lambda it: (
            -round(min(it.strength, 1.0), 1),
            len(it.codec.steps),
            -round(it.known_share, 2),
            -it.strength,
        ),
    )
