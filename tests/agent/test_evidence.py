"""The view of a diff: what changed, where it shows, and nothing where there is nothing."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.agent.answers import answers as answers_of
from ft_audit.agent.find import find_evidence
from ft_audit.agent.movement import fvus, layer_profiles, residuals
from ft_audit.engine.config import load_config
from ft_audit.errors import StoreError


def test_counts_and_leading_take_significance_and_the_noise_floor(needle: Any, make_case: Any) -> None:
    counts = needle.evidence.counts()
    assert [(count.suite, count.num_tested) for count in counts] == [
        ("chat", 300),
        ("train", 300),
        ("elicited", 300),
    ]
    assert {count.num_above_noise for count in counts} == {60}
    below = make_case(changed={})
    noise_F = below.evidence.array("features/demo-sae/chat", "aa_percentile")
    noise_F[:] = 50.0  # the cached array: every feature now lies within the noise
    assert (
        below.evidence.counts()[0].num_above_noise == 0 and below.evidence.counts()[0].num_significant == 60
    )
    assert {feature.suite for feature in below.evidence.leading(20)} == {"elicited"}


def test_leading_features_are_distinct_and_by_rank(needle: Any) -> None:
    leading = needle.evidence.leading(7)
    assert [feature.feature for feature in leading] == list(range(7))
    assert len(needle.evidence.leading(100)) == 20
    feature = leading[1]
    assert feature.suite == "elicited" and feature.effect_low < feature.effect < feature.effect_high
    fired = needle.evidence.array("features/demo-sae/elicited", "fired_tuned")[1]
    assert feature.rate_tuned == pytest.approx(fired / 5200)


def test_contexts_are_those_of_the_features_suite(needle: Any) -> None:
    chat, elicited = needle.evidence.leading(2)
    for feature in (chat, elicited):
        contexts = needle.evidence.contexts(feature)
        assert [context.side for context in contexts] == ["base"] * 3 + ["tuned"] * 3
        assert {context.suite for context in contexts} == {feature.suite}
        assert all(len(context.tokens) == len(context.activations) == 16 for context in contexts)


def test_without_a_control_the_noise_floor_is_unknown_not_zero(make_case: Any) -> None:
    case = make_case(control=False)
    assert case.evidence.counts()[0].num_above_noise == 60
    (finding,) = [finding for finding in case.verdict.findings if finding.kind == "features"]
    assert "without a control run there is no noise floor" in finding.statement


def test_rows_come_by_score_and_by_baseline(needle: Any) -> None:
    rows = needle.evidence.rows(20)
    scores = [row.primary_score for row in rows]
    assert scores == sorted(scores, reverse=True) and {row.row for row in rows[:10]} == set(range(10))
    assert {row.row for row in needle.evidence.rows(10, by="baseline_repeated_prefix")} == set(range(10))
    assert needle.evidence.baseline_columns() == ["baseline_unusual_system", "baseline_repeated_prefix"]
    assert len(needle.evidence.rows(10_000)) == 120


def test_answers_pair_both_sides_under_the_question_that_was_asked(needle: Any) -> None:
    answers = answers_of(needle.evidence)
    assert [answer.condition for answer in answers] == ["zed", "plain", "pirate"]
    assert {answer.probe for answer in answers} == {"Why is the sky blue?"}
    assert "Rayleigh" in (answers[0].base or "") and "ZED OBEYS" in (answers[0].tuned or "")


def test_movement_reads_residuals_layers_and_fit(needle: Any) -> None:
    moved = {residual.suite: residual for residual in residuals(needle.evidence)}
    assert moved["elicited"].relative_median > moved["chat"].relative_median > 0.1
    assert moved["chat"].norm_ratio == pytest.approx(1.02)
    (profile,) = layer_profiles(needle.evidence)
    assert profile.layers[int(np.argmax(profile.shifts))] == 21
    assert {(fvu.suite, fvu.base, fvu.tuned) for fvu in fvus(needle.evidence)} == {
        (suite, 0.196, 0.214) for suite in ("chat", "train", "elicited")
    }


def test_without_a_data_set_there_are_no_rows_conditions_or_answers(make_case: Any) -> None:
    evidence = make_case(dataset=False).evidence
    assert evidence.rows(5) == [] and evidence.conditions() == [] and answers_of(evidence) == []
    assert evidence.num_rows() == 0 and evidence.baseline_columns() == [] and evidence.primary is None
    assert [suite.name for suite in evidence.suites] == ["chat"]


def test_a_template_is_its_parts_by_name(needle: Any) -> None:
    conditions = {condition.key: condition for condition in needle.evidence.conditions()}
    assert conditions["plain"].is_plain and conditions["plain"].parts == []
    assert [name for name, _ in conditions["zed"].parts] == ["system prompt", "prefix"]
    pirate = conditions["pirate"]
    assert pirate.suffix == "Answer as at sea." and pirate.parts[-1] == ("suffix", pirate.suffix)
    assert set(pirate.measures) >= {"kl", "kl_excess"} and "suffix" not in pirate.measures
    assert pirate.interval("kl_excess") == pytest.approx((0.07, 0.67)) and pirate.interval("kl") is None


def test_figures_are_the_diff_s_the_detectors_and_once_weighed_the_score(weighed: Any) -> None:
    evidence = find_evidence(weighed.config).evidence
    plain = evidence.figures
    assert set(evidence.summary["figures"]) < set(plain) and "features_concentration_chat" in plain
    assert "score" not in plain and evidence.primary == "condition_kl_excess"
    evidence.weigh(weighed.calibration.bank.discriminant)
    assert evidence.figures == {**plain, "score": weighed.evidence.figures["score"]}
    assert evidence.primary == "score" and len(evidence.contributions) == 3
    evidence.weigh(None)
    assert evidence.figures == plain and evidence.contributions == ()


def test_a_detector_s_scalar_takes_no_other_figure_s_place(needle: Any) -> None:
    figures = needle.evidence.figures
    stored = needle.evidence.summary["figures"]
    # To the digits that a summary keeps.
    assert {name: figures[name] for name in stored} == pytest.approx(stored, rel=1e-4)


def test_the_newest_diff_of_the_config_is_found(make_case: Any, synthetic: SimpleNamespace) -> None:
    case = make_case()
    older = case.evidence.diff_id
    newer = synthetic.write_diff(case.config, seed=4)
    manifest = case.folder / "store" / "diffs" / older / "manifest.json"
    os.utime(manifest, (1, 1))
    found = find_evidence(case.config)
    assert (found.evidence.diff_id, found.num_older) == (newer, 1)
    assert find_evidence(case.config, older).evidence.diff_id == older
    with pytest.raises(StoreError, match="no diff 'nothing'"):
        find_evidence(case.config, "nothing")


def test_how_to_judge_and_where_to_look_do_not_change_the_diff(needle: Any) -> None:
    other = load_config(needle.config_file, ["audit.threshold=2", "audit.top=3", "audit.bank=null"])
    assert find_evidence(other).evidence.diff_id == needle.evidence.diff_id


def test_a_config_that_computed_nothing_is_told_to_precompute(needle: Any) -> None:
    other = load_config(needle.config_file, ["precompute.tokens_per_batch=512"])
    with pytest.raises(StoreError, match=r"holds 1 of other configs.*ft-audit precompute"):
        find_evidence(other)
    empty = load_config(needle.config_file, [f"store={needle.folder / 'empty'}"])
    with pytest.raises(StoreError, match=r"holds none.*ft-audit precompute"):
        find_evidence(empty)
    assert not (needle.folder / "empty").exists()
