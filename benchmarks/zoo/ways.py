"""Ways to detect that are held against each other: kinds of evidence, tiers of cost, baselines."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ft_audit.agent.detectors import data_set, residual_change, sae_features
from ft_audit.agent.detectors.registry import DETECTORS
from ft_audit.agent.detectors.scalar import COSTS, Detector, Scalar
from ft_audit.agent.summary import Summary
from ft_audit.benchmarks.zoo.crossfit import Scorer, direct, discriminant, raw, unsupervised, weighed_sum
from ft_audit.benchmarks.zoo.rows_apart import rows_apart

SAE_FEATURES = next(d for d in DETECTORS if d.scalars is sae_features.scalars)
DATA_SET = next(d for d in DETECTORS if d.scalars is data_set.scalars)
WITHOUT_SAE = tuple(d for d in DETECTORS if d is not SAE_FEATURES)


class Way(NamedTuple):
    """Which evidence, and how it becomes one score."""

    name: str
    detectors: tuple[Detector, ...]
    scorer: Scorer = discriminant


def ways(summaries: Sequence[Summary]) -> list[Way]:
    """Return every detector alone, all but one, tiers of cost, baselines, and what stands in the trained
    dictionary's place where every summary has it."""
    found = [
        Way("all, equal weights", DETECTORS, unsupervised),
        Way("weighed sum alone", DETECTORS, weighed_sum),
        Way("direct measures alone", DETECTORS, direct),
    ]
    found += [Way(f"{d.name} alone", (d,)) for d in DETECTORS]
    found += [
        Way(f"all without {d.name}", tuple(other for other in DETECTORS if other is not d)) for d in DETECTORS
    ]
    for place, cost in enumerate(COSTS):
        found.append(Way(f"up to {cost}", tuple(d for d in DETECTORS if d.cost in COSTS[: place + 1])))
    found += _in_its_place(summaries)
    found += [
        Way("difference norm only", (_difference_norm(),), raw),
        Way("suspicion score, chats", (_suspicion("chat"),), raw),
        Way("suspicion score, training rows", (_suspicion("train"),), raw),
        Way("rows apart, by features", (rows_apart("features"),), raw),
        Way("rows apart, by residuals", (rows_apart("residuals"),), raw),
        Way("data set, with rows apart", (DATA_SET, rows_apart("features"))),
        Way("number of rows", (Detector("rows", "texts", lambda s: {"rows": Scalar(s.num_rows, 1)}),), raw),
    ]
    return found


def _in_its_place(summaries: Sequence[Summary]) -> list[Way]:
    names = sorted(set.intersection(*(set(summary.untrained) for summary in summaries)))
    if not names:
        return []
    found = []
    for detector in (_trained(), *map(_untrained, names)):
        found.append(Way(f"dictionary: {detector.name}, alone", (detector,)))
        found.append(Way(f"dictionary: {detector.name}, with all else", (*WITHOUT_SAE, detector)))
    return found


def _trained() -> Detector:
    def scalars(summary: Summary) -> Mapping[str, Scalar]:
        found = sae_features.scalars(summary)
        return {name: found[name] for name in sae_features.OWN if name in found}

    return Detector("trained", "forward", scalars)


def _untrained(name: str) -> Detector:
    return Detector(name, "forward", lambda summary: sae_features.untrained_scalars(summary, name))


def _difference_norm() -> Detector:
    name = "residual_change"
    return Detector(name, "forward", lambda summary: {name: residual_change.scalars(summary)[name]})


def _suspicion(suite: str) -> Detector:
    name = f"suspicion_{suite}"
    return Detector(
        name, "forward", lambda summary: {name: Scalar(sae_features.suspicion(summary, suite), 1.0)}
    )
