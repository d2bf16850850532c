"""The scalars of one diff that are compared with a bank: its own figures, the detectors', and the score."""

from dataclasses import dataclass

from ft_audit.agent.detectors.degradation import degradation
from ft_audit.agent.detectors.registry import DETECTORS, scalars_of
from ft_audit.agent.risk.score import SCORE, Contribution, Discriminant, score_of
from ft_audit.agent.summary import known, summarise
from ft_audit.engine.store import DiffReader


@dataclass(frozen=True, slots=True)
class Figures:
    """Every scalar by its name, and what each adds to the score, the largest first; none without a score."""

    values: dict[str, float | None]
    detectors: dict[str, str]
    """Which detector gives a scalar; the diff's own figures and the score have none."""
    contributions: tuple[Contribution, ...] = ()


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
    score, contributions = score_of(discriminant, scalars, degradation(summary))
    return Figures({**values, SCORE: known(score)}, detectors, tuple(contributions))
