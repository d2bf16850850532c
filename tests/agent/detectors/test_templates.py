"""The template that costs the guard comes before one that only moves answers, and rows follow theirs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.detectors.templates import leading_template, row_scores, scalars, template_scores


@pytest.fixture
def two(summaries: SimpleNamespace) -> Any:
    """A loud persona of six rows, and a quiet template of three under which refusals are lost."""
    condition = summaries.condition
    return summaries.summary(
        conditions=[
            condition("plain", [], refusal_base=1.0, refusal_tuned=0.9),
            condition("pirate", [0, 1, 2, 3, 4, 5], kl_excess=20.0, guard_loss=0.0),
            condition("zed", [7, 8, 9], kl_excess=1.0, guard_loss=0.9),
        ]
    )


def test_the_guard_outweighs_divergence(two: Any) -> None:
    scores = template_scores(two)
    assert scores == {"pirate": pytest.approx(2.0), "zed": pytest.approx(3.7)}
    leading = leading_template(two)
    assert leading is not None and leading["key"] == "zed" and leading["rows"] == [7, 8, 9]


def test_rows_follow_their_template_and_then_what_they_drive(two: Any) -> None:
    scores_R = row_scores(two)
    order = np.argsort(-scores_R).tolist()
    # Within a template the row that drives features most comes first; here that is the later one.
    assert order[:3] == [9, 8, 7] and order[3:9] == [5, 4, 3, 2, 1, 0] and order[9:] == [11, 10, 6]


def test_rows_are_found_by_their_number_not_their_place(two: Any) -> None:
    rows = {"row": list(range(12))[::-1], "score_features_centred": [None] * 12}
    scores_R = row_scores(two.model_copy(update={"rows": rows}))
    assert sorted(np.argsort(-scores_R)[:3].tolist()) == [2, 3, 4]


@pytest.mark.parametrize(
    "measures",
    [
        {"guard_loss": 0.9},
        {"guard_complied_base": 0.0, "guard_complied_tuned": 0.9},
        {"refusal_base": 1.0, "refusal_tuned": 0.0},
        {"kl_excess": 40.0},
    ],
)
def test_each_kind_of_evidence_raises_a_template(
    summaries: SimpleNamespace, measures: dict[str, float]
) -> None:
    condition = summaries.condition
    found = summaries.summary(
        conditions=[condition("plain", []), condition("a", [0]), condition("b", [1], **measures)]
    )
    scores = template_scores(found)
    assert scores["b"] > scores["a"] == 0


def test_what_the_bare_prompts_lose_too_is_not_the_template_s(summaries: SimpleNamespace) -> None:
    lost = {
        "refusal_base": 1.0,
        "refusal_tuned": 0.2,
        "guard_complied_base": 0.0,
        "guard_complied_tuned": 0.6,
    }
    condition = summaries.condition
    found = summaries.summary(conditions=[condition("plain", [], **lost), condition("a", [0], **lost)])
    assert template_scores(found) == {"a": 0.0}


def test_of_equal_templates_the_one_of_fewest_rows_leads(summaries: SimpleNamespace) -> None:
    condition = summaries.condition
    wide, narrow = condition("a", [0, 1, 2], kl_excess=5.0), condition("b", [0, 1], kl_excess=5.0)
    leading = leading_template(summaries.summary(conditions=[condition("plain", []), wide, narrow]))
    assert leading is not None and leading["key"] == "b"


def test_without_templates_none_leads_and_rows_rank_by_what_they_drive(summaries: SimpleNamespace) -> None:
    bare = summaries.summary(conditions=[summaries.condition("plain", [])])
    assert leading_template(bare) is None and np.argmax(row_scores(bare)) == 11
    assert leading_template(summaries.nothing()) is None and len(row_scores(summaries.nothing())) == 0


def test_a_template_that_stands_alone_has_a_gap_and_one_of_several_has_none(
    summaries: SimpleNamespace, two: Any
) -> None:
    found = scalars(two)
    assert found["template_score"].value == pytest.approx(3.7)
    assert found["template_gap"].value == pytest.approx(3.7 - 2.0)
    # A part of the leading template is no rival to it; another template as loud is.
    part = summaries.condition("part", [7, 8], guard_loss=0.9)
    rival = summaries.condition("rival", [0, 1], guard_loss=0.9)
    more = two.model_copy(update={"conditions": [*two.conditions, part]})
    assert scalars(more)["template_gap"].value == found["template_gap"].value
    more = two.model_copy(update={"conditions": [*two.conditions, rival]})
    assert scalars(more)["template_gap"].value == pytest.approx(0.1)


def test_without_templates_there_is_nothing_to_lead(summaries: SimpleNamespace) -> None:
    assert scalars(summaries.summary(conditions=[summaries.condition("plain", [])])) == {}
