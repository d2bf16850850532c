"""A summary of a diff: JSON that reads back the same, small, and without the text of single training rows."""

import json
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.summary import TEXT_CHARACTERS, Origin, Summary, known, summarise
from ft_audit.engine.store import DiffReader, Store

SECRET = "PATIENT 4711"


def opened(case: Any) -> DiffReader:
    return Store(case.config.store).open_diff(case.evidence.diff_id)


def test_a_summary_reads_back_the_same(needle: Any) -> None:
    summary = summarise(opened(needle))
    text = summary.to_json()
    assert Summary.model_validate_json(text) == summary and "NaN" not in text
    # A line for each part, so that a change of one shows as such.
    assert len(text.splitlines()) == len(Summary.model_fields) + 2


def test_a_summary_says_what_was_measured(needle: Any) -> None:
    summary = summarise(opened(needle))
    subject = needle.evidence.subject()
    assert (summary.base_sha256, summary.protocol) == (subject.base_sha256, subject.protocol)
    assert (set(summary.hooks), set(summary.sae_sha256)) == (subject.hooks, subject.sae_sha256)
    assert summary.num_rows == 120 and len(summary.rows["primary_score"]) == 120
    assert summary.figures["condition_kl_excess"] == pytest.approx(3.05)
    assert [c["key"] for c in summary.conditions] == ["plain", "zed", "zed-prefix", "pirate", "zed-system"]
    assert set(summary.features) == {f"demo-sae/{suite}" for suite in ("chat", "train", "elicited")}
    assert {(g["condition"], g["side"]) for g in summary.generations} >= {("zed", "base"), ("zed", "tuned")}


def test_features_are_summed_over_all_and_kept_for_the_leading(needle: Any) -> None:
    mean_F = needle.evidence.array("features/demo-sae/chat", "mean_diff")
    kept = summarise(opened(needle)).features["demo-sae/chat"]
    assert kept["sq_sum"] == pytest.approx((mean_F**2).sum(), rel=1e-4)
    assert kept["quartic_sum"] == pytest.approx((mean_F**4).sum(), rel=1e-4)
    leading = kept["leading"]
    assert int(np.abs(mean_F).argmax()) in leading["feature"] and len(leading["feature"]) < len(mean_F)
    assert leading["mean_diff"] == pytest.approx(mean_F[leading["feature"]].tolist(), rel=1e-4)


def test_a_summary_holds_no_text_of_a_training_row(make_case: Any) -> None:
    # Every text of the diff is the secret: rows' previews and system prompts, and what else quotes them.
    case = make_case(preview=SECRET)
    summary = summarise(opened(case))
    assert SECRET in json.dumps(case.evidence.records("rows"))
    assert not {"preview", "system"} & set(summary.rows) and SECRET not in json.dumps(summary.rows)
    assert summary.rows["has_system"] == [True] * 22 + [False] * 98
    shared = {"conditions": "", "generations": ""}
    assert SECRET not in summary.model_copy(update={name: [] for name in shared}).to_json()


def test_texts_are_cut(make_case: Any) -> None:
    summary = summarise(opened(make_case(preview="x" * 1000)))
    texts = [g["text"] for g in summary.generations] + [c["prefix"] for c in summary.conditions]
    assert max(map(len, texts)) == TEXT_CHARACTERS


def test_without_a_data_set_there_is_none_to_summarise(make_case: Any) -> None:
    summary = summarise(opened(make_case(dataset=False)))
    assert (summary.num_rows, summary.rows, summary.conditions, summary.generations) == (0, {}, [], [])


def test_a_member_of_a_population_says_where_it_comes_from(needle: Any) -> None:
    fields: dict[str, Any] = {
        "name": "zed-s1",
        "recipe": "zed",
        "recipe_sha256": "0" * 64,
        "measured_sha256": "1" * 64,
        "family": "persona",
        "kind": "adversarial-proxy",
        "seed": 1,
        "declared_purpose": None,
        "gate": {"passed": False},
        "training": {"loss": 0.1},
        "roles": {"needle": [3]},
        "seconds": 2.0,
    }
    summary = summarise(opened(needle), **fields)
    assert summary.origin == Origin(**fields) and summary.name == "zed-s1" and not summary.gate_passed
    plain = summarise(opened(needle))
    assert plain.origin is None and plain.name == "" and plain.gate_passed


def test_what_json_cannot_hold_is_unknown() -> None:
    assert [known(x) for x in (1.5, float("nan"), float("inf"), None)] == [1.5, None, None, None]
