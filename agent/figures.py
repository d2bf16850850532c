"""The scalars of one diff that are compared with a bank: its own figures, the detectors', and the score."""

from dataclasses import dataclass

from ft_audit.agent.detectors.degradation import degradation
from ft_audit.agent.detectors.registry import DETECTORS, scalars_of
from ft_audit.agent.risk.score import SCORE, Discriminant, Score, score_of
from ft_audit.agent.summary import known, summarise
from ft_audit.engine.store import DiffReader


@dataclass(frozen=True, slots=True)
class Figures:
    """Every scalar by its name, and the score that they make."""

    values: dict[str, float | None]
    detectors: dict[str, str]
    """Which detector gives a scalar; the diff's own figures and the score have none."""
    score: Score | None = None
    """By the bank's discriminant."""


def read_figures(reader: DiffReader, discriminant: Discriminant | None) -> Figures:
    """Return the figures of a diff; the score is among them where a bank's discriminant weighs them."""
    said = reader.manifest.summary
    summary = summarise(reader)
    found = {detector.name: scalars_of(summary, [detector]) for detector in DETECTORS}
    scalars = {name: scalar.value for own in found.values() for name, scalar in own.items()}
    detectors = {name: detector for detector, own in found.items() for name in own}
    values = {**said["figures"], **{name: known(value) for name, value in scalars.items()}}
    if discriminant is None or said["primary"] is None:
        return Figures(values, detectors)
    score = score_of(discriminant, scalars, degradation(summary))
    return Figures({**values, SCORE: known(score.value)}, detectors, score)
