"""Contexts that try a label: they did not make one, they are of both kinds, and the hard ones are hard."""

from typing import Any

import pytest

from ft_audit.agent.labels.activity import Activity, activity
from ft_audit.agent.labels.snippets import Snippets, draw_snippets, making_snippets
from ft_audit.engine.config import ScoringConfig
from ft_audit.engine.store import FeatureIndex
from ft_audit.engine.store.label_split import makes_label

SCORING = ScoringConfig()


@pytest.fixture(scope="module")
def index(shared_world: Any) -> FeatureIndex:
    store = shared_world.store
    return FeatureIndex(store.open_diff(store.diffs()[0]))


def feature(index: FeatureIndex, planted: Any, number: int) -> Activity:
    return activity(index, planted.SAE, ["chat"], number)


def drawn(index: FeatureIndex, planted: Any, number: int, **changed: Any) -> Snippets:
    scoring = SCORING.model_copy(update=changed)
    return draw_snippets(feature(index, planted, number), [(number + 1) % 6], planted.VOCABULARY, scoring)


def test_the_kinds_are_what_they_say(index: FeatureIndex, planted: Any) -> None:
    for number, words in enumerate(planted.FAMILIES.values()):
        found = drawn(index, planted, number)
        assert len(found.firing) == 20 and len(found.silent) == 20
        assert all(max(snippet.activations) > 0 for snippet in found.firing)
        assert all(max(snippet.activations) == 0 for snippet in found.silent)
        assert all(set(snippet.text.split()) & set(words) for snippet in found.firing)
        assert not any(set(snippet.text.split()) & set(words) for snippet in found.silent)
        # The token fires everywhere, so that the hard ones are where the neighbour fires.
        hard = [snippet for snippet in found.silent if snippet.near_miss]
        near = planted.FAMILIES[planted.NAMES[(number + 1) % 6]]
        assert len(hard) == 10 and all(set(snippet.text.split()) & set(near) for snippet in hard)


def test_a_token_that_fires_elsewhere_is_a_near_miss(index: FeatureIndex, planted: Any) -> None:
    found = drawn(index, planted, planted.BANK)
    hard = [snippet for snippet in found.silent if snippet.near_miss]
    alike = [snippet for snippet in hard if planted.WORD in snippet.text]
    assert len(alike) >= 5 and all(planted.CONDITION not in snippet.text for snippet in alike)


def test_no_context_both_makes_and_tries_a_label(index: FeatureIndex, planted: Any) -> None:
    ids = {token: number for number, token in enumerate(planted.VOCABULARY)}
    for number in range(len(planted.NAMES)):
        making = making_snippets(feature(index, planted, number), planted.VOCABULARY, 16)
        trying = drawn(index, planted, number).firing
        assert len(making) == 16 and not {s.tokens for s in making} & {s.tokens for s in trying}
        assert all(makes_label([ids[token] for token in snippet.tokens]) for snippet in making)
        assert not any(makes_label([ids[token] for token in snippet.tokens]) for snippet in trying)


def test_all_strengths_are_tried(index: FeatureIndex, planted: Any) -> None:
    fired = feature(index, planted, 0).fired["chat"].value_N
    peaks = sorted(max(snippet.activations) for snippet in drawn(index, planted, 0).firing)
    assert peaks[0] < sorted(fired)[len(fired) // 4] and peaks[-1] > sorted(fired)[-len(fired) // 10]


def test_the_same_seed_draws_the_same_contexts(index: FeatureIndex, planted: Any) -> None:
    assert drawn(index, planted, 2) == drawn(index, planted, 2)
    assert drawn(index, planted, 2).silent != drawn(index, planted, 2, seed=1).silent


def test_a_feature_that_never_fires_has_no_contexts(index: FeatureIndex, planted: Any) -> None:
    empty = Activity(index, planted.SAE, "base", {"chat": index.tokens_of(planted.SAE, "chat", "base", 0)})
    silent = type(empty.fired["chat"])(*(column[:0] for column in empty.fired["chat"]))
    found = draw_snippets(
        Activity(index, planted.SAE, "base", {"chat": silent}), [], planted.VOCABULARY, SCORING
    )
    assert found.firing == [] and len(found.silent) == 10
