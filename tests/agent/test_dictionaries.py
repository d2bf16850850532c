"""What the dictionaries see and where they agree, as the diff has it."""

import math
from typing import Any

import pytest

from ft_audit.agent.dictionaries import agreements, coverages, matches
from ft_audit.agent.leading import leading_json
from ft_audit.agent.terminal import top_text


def test_coverage_comes_by_dictionary_and_suite(needle: Any) -> None:
    found = coverages(needle.evidence)
    assert [(one.sae, one.suite) for one in found] == [("demo-sae", s) for s in ("chat", "train", "elicited")]
    chat = found[0]
    assert (chat.seen_low, chat.seen, chat.seen_high) == pytest.approx((0.23, 0.31, 0.38))
    assert chat.missed == pytest.approx(0.69)
    assert len(chat.best) == 16 and chat.random < chat.leading < chat.strongest < chat.best


def test_agreement_is_unknown_where_nothing_leads(needle: Any) -> None:
    some, none = agreements(needle.evidence)
    assert (some.num_agreeing, some.num_leading, some.agreement) == (24, 50, 0.48)
    assert none.num_leading == 0 and math.isnan(none.agreement)


def test_matches_are_nearest_first_and_of_the_one_feature(needle: Any) -> None:
    (match,) = matches(needle.evidence, "demo-sae", 2)
    assert (match.sae, match.feature, match.cosine, match.mutual) == ("other-sae", 41, 0.22, False)
    assert matches(needle.evidence, "demo-sae", 200) == []


def test_top_tells_them_with_the_labels(labelled: Any) -> None:
    text = top_text(labelled.evidence, 5)
    assert "orders given to ZED (0.82)" in text
    assert "Share of the change that the dictionaries see" in text and "23% to 38%" in text
    assert "24 of 50" in text
    told = leading_json(labelled.evidence, 5)
    assert told["features"][0]["label"]["text"] == "orders given to ZED"
    assert told["features"][1]["label"] is None
    assert told["coverage"][0]["seen"] == pytest.approx(0.31) and told["agreement"][1]["agreement"] is None
