"""What holds of every detector: it reads what is there, and what is not there is unknown, never a crash."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.detectors.degradation import degradation
from ft_audit.agent.detectors.matrix import matrix
from ft_audit.agent.detectors.registry import DETECTORS, scalars_of
from ft_audit.agent.detectors.scalar import COSTS, Detector, Scalar

PARTS = ("figures", "conditions", "rows", "features", "residual", "weights", "generations")
FROM_FIGURES = {"data set", "elicited", "guard", "next token"}


def test_an_ordinary_summary_has_every_scalar_and_each_a_resolution(summaries: SimpleNamespace) -> None:
    found = scalars_of(summaries.summary())
    assert len(found) > 40 and all(math.isfinite(scalar.value) for scalar in found.values())
    assert all(scalar.resolution > 0 for scalar in found.values())


def test_where_nothing_was_measured_nothing_is_known(summaries: SimpleNamespace) -> None:
    assert all(math.isnan(scalar.value) for scalar in scalars_of(summaries.nothing()).values())


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_changes_no_scalar_of_the_others(summaries: SimpleNamespace, part: str) -> None:
    whole = summaries.summary()
    without = whole.model_copy(update={part: type(getattr(whole, part))()})
    before, after = scalars_of(whole), scalars_of(without)
    known = {name: scalar.value for name, scalar in after.items() if math.isfinite(scalar.value)}
    assert known == {name: before[name].value for name in known} and len(known) < len(before)


def test_what_was_measured_as_unknown_is_unknown(summaries: SimpleNamespace) -> None:
    unknown: dict[str, Any] = dict.fromkeys(summaries.FIGURES)
    rows = {name: [None] * 12 for name in ("loss_base", "loss_tuned", "score_features_centred")}
    weights = {"kind": ["q", None], "layer": [0, None], "relative_change": [None, None]}
    still = {**summaries.residual(), "relative_change": None, "mean_moved": None, "component_share": [None]}
    empty = summaries.summary(
        unknown,
        rows={"row": list(range(12)), **rows},
        weights=weights,
        features={"sae/train": summaries.features([]), "sae/everyday": summaries.features([])},
        residual={"resid_post/1/everyday": {**still, "start_shift_norm": [None]}},
        conditions=[summaries.condition("plain", []), summaries.condition("x", [0], kl_excess=None)],
        generations=summaries.answers("plain", [], [None]),
    )
    found = scalars_of(empty)
    for detector in DETECTORS:
        values = [scalar.value for scalar in detector.scalars(empty).values()]
        assert detector.name not in FROM_FIGURES or all(math.isnan(value) for value in values)
    assert math.isnan(found["residual_change"].value) and found["answers_plain_repeated"].value == 0


def test_only_the_answers_of_one_side_are_no_crash(summaries: SimpleNamespace) -> None:
    tuned = [g for g in summaries.summary().generations if g["side"] == "tuned"]
    found = scalars_of(summaries.summary(generations=tuned))
    assert found["answers_denied"].value == 0


def test_cheap_detectors_come_first() -> None:
    costs = [COSTS.index(detector.cost) for detector in DETECTORS]
    assert costs == sorted(costs) and len({detector.name for detector in DETECTORS}) == len(DETECTORS)


def test_two_detectors_of_one_name_are_our_mistake(summaries: SimpleNamespace) -> None:
    twin = Detector("twin", "texts", lambda summary: {"guard_loss": Scalar(0.0, 1.0)})
    with pytest.raises(AssertionError, match="two detectors give guard_loss"):
        scalars_of(summaries.summary(), (*DETECTORS, twin))


def test_no_scalar_takes_the_name_of_another_figure(summaries: SimpleNamespace) -> None:
    summary = summaries.summary()
    found = scalars_of(summary)
    shared = set(found) & set(summary.figures)
    assert len(shared) >= 10
    assert {name: found[name].value for name in shared} == {name: summary.figures[name] for name in shared}


def test_members_side_by_side_keep_what_only_some_have(summaries: SimpleNamespace) -> None:
    clumsy = summaries.summary({"kl_mean/chat": 1.0})
    data = matrix([summaries.nothing(), clumsy])
    assert data.x_MS.shape == (2, len(data.names)) == (2, len(data.resolution_S))
    place = data.names.index("guard_loss")
    assert np.isnan(data.x_MS[0, place]) and data.x_MS[1, place] == 0
    assert data.degradation_M.tolist() == [degradation(summaries.nothing()), 0.0] == [-4.0, 0.0]


def test_degradation_grows_with_the_divergence_on_chats(summaries: SimpleNamespace) -> None:
    grown = [degradation(summaries.summary({"kl_mean/chat": kl})) for kl in (0.0, 1e-5, 0.01, 1.0)]
    assert grown == [-4.0, -4.0, -2.0, 0.0]
