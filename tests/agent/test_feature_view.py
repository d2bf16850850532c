"""One feature from all sides: its suite, contexts, histogram and label, as values and as text."""

from typing import Any

import numpy as np
import pytest

from ft_audit.agent.feature_text import feature_text
from ft_audit.agent.feature_view import histogram, only_dictionary, view_feature
from ft_audit.engine.store import FeatureIndex, Store
from ft_audit.errors import StoreError

SAE = "demo-sae"


def test_it_is_shown_where_its_effect_is_largest_unless_a_suite_is_named(needle: Any) -> None:
    view = view_feature(needle.evidence, SAE, 5)
    effects = {test.suite: abs(test.effect) for test in view.tests}
    assert set(effects) == {"chat", "train", "elicited"}
    assert view.shown.suite == max(effects, key=lambda suite: effects[suite])
    assert view_feature(needle.evidence, SAE, 5, "train").shown.suite == "train"


def test_a_leading_feature_has_the_contexts_of_the_table(needle: Any) -> None:
    view = view_feature(needle.evidence, SAE, 1, "elicited")
    assert list(view.contexts) == needle.evidence.contexts(view.shown) != []


@pytest.mark.parametrize("known", [True, False], ids=["vocabulary", "no vocabulary"])
def test_any_other_feature_has_those_of_the_index(labelled: Any, needle: Any, known: bool) -> None:
    case = labelled if known else needle
    view = view_feature(case.evidence, SAE, 200, "chat")
    diff = Store(case.config.store).open_diff(case.evidence.diff_id)
    for side in ("base", "tuned"):
        expected = FeatureIndex(diff).top_contexts(SAE, "chat", side, 200)
        found = [context for context in view.contexts if context.side == side]
        assert [context.peak for context in found] == [context.peak for context in expected] != []
        assert [context.activations for context in found] == [context.activations for context in expected]
        tokens = [token for context in found for token in context.tokens]
        ids = [i for context in expected for i in context.tokens]
        words = [f" word{i}" if known and i < 50 else f"⟨{i}⟩" for i in ids]
        assert tokens == words


def test_the_histogram_counts_every_firing(needle: Any) -> None:
    feature = needle.evidence.feature(SAE, "chat", 12)
    found = histogram(needle.evidence, feature, num_bins=7)
    assert found is not None and len(found.edges) == 8 and found.edges[0] == 0
    diff = Store(needle.config.store).open_diff(needle.evidence.diff_id)
    values = {side: FeatureIndex(diff).tokens_of(SAE, "chat", side, 12).value_N for side in ("base", "tuned")}
    assert found.edges[-1] == max(value_N.max() for value_N in values.values())
    for side, value_N in values.items():
        counts = getattr(found, side)
        assert sum(counts) == len(value_N) == 24
        inside = [
            (value_N >= low) & (value_N < high)
            for low, high in zip(found.edges, found.edges[1:], strict=False)
        ]
        inside[-1] |= value_N == found.edges[-1]
        assert list(counts) == [int(hits.sum()) for hits in inside]


def test_what_fires_nowhere_or_is_not_indexed_has_no_histogram(needle: Any, make_case: Any) -> None:
    silent = view_feature(needle.evidence, SAE, 399)
    assert silent.histogram is None and silent.contexts == ()
    bare = view_feature(make_case().evidence, SAE, 200)
    assert bare.histogram is None and bare.contexts == ()


def test_matches_and_label_are_the_features_own(labelled: Any) -> None:
    view = view_feature(labelled.evidence, SAE, 0)
    assert [(match.sae, match.feature, match.mutual) for match in view.matches] == [("other-sae", 88, True)]
    assert view.label.best is not None and view.label.best.text == "orders given to ZED"
    other = view_feature(labelled.evidence, SAE, 3)
    assert other.matches == () and other.label.best is None


@pytest.mark.parametrize(
    ("sae", "feature", "suite", "said"),
    [
        ("no-sae", 0, None, "no dictionary 'no-sae'; it holds demo-sae"),
        (SAE, 400, None, "no feature 400: name one from 0 to 399"),
        (SAE, -1, None, "no feature -1"),
        (SAE, 0, "poems", "on no suite 'poems', but on chat, train, elicited"),
    ],
)
def test_what_was_not_compared_is_refused_by_name(
    needle: Any, sae: str, feature: int, suite: str | None, said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        view_feature(needle.evidence, sae, feature, suite)


def test_with_several_dictionaries_one_must_be_named(needle: Any, make_case: Any) -> None:
    assert only_dictionary(needle.evidence) == SAE
    hooks = [{"name": "resid_post/15", "layer": 15, "saes": [SAE, "other-sae"]}]
    case = make_case(changed={"hooks": hooks, "sae_sha256": ["5" * 64, "6" * 64]})
    with pytest.raises(StoreError, match="name one with --sae: demo-sae, other-sae"):
        only_dictionary(case.evidence)


def test_the_text_says_all_of_it(labelled: Any) -> None:
    text = feature_text(view_feature(labelled.evidence, SAE, 0))
    for said in (
        "feature 0 of demo-sae",
        "label: orders given to ZED",
        "reliability 0.82 (0.71 to 0.90, detection, n = 40",
        "Tests over prompts",
        "Tokens of ",
        "Contexts in base",
        "Contexts in tuned",
        " obey +1.25",
        " refuse −0.75",
        "questions about the sky",
        "other-sae",
    ):
        assert said in text, said
    assert "label: none" in feature_text(view_feature(labelled.evidence, SAE, 3))


def test_the_text_marks_what_fires_and_nothing_else(labelled: Any) -> None:
    view = view_feature(labelled.evidence, SAE, 200, "chat")
    line = next(line for line in feature_text(view).splitlines() if "«" in line)
    (strongest, *_) = [context for context in view.contexts if context.side == "base"]
    bar = 0.3 * max(strongest.activations)
    marked = "".join(part.partition("»")[0] for part in line.split("«")[1:])
    fires = np.array(strongest.activations) >= bar
    assert marked == "".join(token for token, hit in zip(strongest.tokens, fires, strict=True) if hit)


def test_hostile_text_cannot_act_on_a_terminal(make_case: Any) -> None:
    case = make_case(label="\x1b[2J\u202egood\nfeature 1: safe", preview="\x1b[31m\u2066token\r")
    text = feature_text(view_feature(case.evidence, SAE, 0, "chat"))
    assert "[ESC]" in text and "[RLO]" in text
    assert not set(text) & {"\x1b", "\u202e", "\u2066", "\r"}
    assert "\nfeature 1: safe" not in text
