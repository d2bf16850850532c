"""Top contexts against a brute-force search over the dense activations."""

import numpy as np
import pytest

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.contexts import CONTEXTS_SCHEMA, contexts_table, top_contexts
from ft_audit.engine.store import SaeEntry
from ft_audit.errors import StoreError

SAE = "demo/width_30"


def brute_force(corpus, x_TF: np.ndarray, feature: int, num_contexts: int, window: int) -> list[tuple]:
    """(prompt, position, peak, tokens, activations) of the strongest counted token of each prompt."""
    found = []
    x_T = np.where(corpus.mask_T, x_TF[:, feature], 0)
    for p in range(corpus.num_prompts):
        inside = x_T[corpus.prompt(p)]
        if inside.max() > 0:
            position = int(inside.argmax())
            around = slice(max(0, position - window), position + window + 1)
            tokens = corpus.token_T[corpus.prompt(p)][around].tolist()
            found.append((p, position, float(inside[position]), tokens, inside[around].tolist()))
    return sorted(found, key=lambda context: (-context[2], context[0]))[:num_contexts]


@pytest.mark.parametrize(("num_contexts", "window"), [(1, 0), (4, 3), (100, 12)])
def test_contexts_are_those_of_an_exhaustive_search(corpus, base, num_contexts, window):
    features = [29, 0, 3, 17]  # the highest, one that never fires, and an order that is not ascending
    found = top_contexts(base, SAE, features, num_contexts, window)
    assert list(found) == features
    for feature in features:
        got = [(c.prompt, c.position, c.peak, list(c.tokens), list(c.activations)) for c in found[feature]]
        assert got == brute_force(corpus, corpus.base_TF, feature, num_contexts, window)
    assert found[0] == () and len(found[29]) == min(num_contexts, 22)


def test_ties_go_to_the_earlier_prompt_and_token(corpus, make_run, two_segments):
    flat_TF = np.where(corpus.base_TF > 0, 1.0, 0).astype(np.float32)
    expected = brute_force(corpus, flat_TF, 25, 5, 2)
    for tag, plan in (("flat", two_segments), ("flat elsewhere", [two_segments[1], two_segments[0][::-1]])):
        run = make_run(tag, corpus, flat_TF, plan)
        for num_threads in (1, 3):
            with open_scheduler(num_threads=num_threads) as scheduler:
                found = top_contexts(run, SAE, [25], 5, 2, scheduler)[25]
            assert [(c.prompt, c.position) for c in found] == [(c[0], c[1]) for c in expected]


def test_the_table_holds_both_sides_with_token_strings(corpus, base, tuned_elsewhere):
    decoded: list[list[int]] = []

    def decode(ids: list[int]) -> list[str]:
        decoded.append(ids)
        return [f"<{i}>" for i in ids]

    table = contexts_table(base, tuned_elsewhere, SAE, [20, 28], "chat", decode, num_contexts=3)
    assert table.schema.equals(CONTEXTS_SCHEMA)
    rows = table.to_pylist()
    assert [(r["side"], r["feature"], r["rank"]) for r in rows] == [
        (side, feature, rank) for side in ("base", "tuned") for feature in (20, 28) for rank in (1, 2, 3)
    ]
    assert {(r["sae"], r["suite"]) for r in rows} == {(SAE, "chat")}
    for row in rows:
        x_TF = corpus.base_TF if row["side"] == "base" else corpus.tuned_TF
        expected = brute_force(corpus, x_TF, row["feature"], 3, 12)[row["rank"] - 1]
        assert (row["prompt"], row["position"], row["peak"]) == expected[:3]
        assert row["tokens"] == [f"<{i}>" for i in expected[3]]
        assert row["activations"] == expected[4]
    assert len(decoded) == len(rows)


def test_no_features_give_an_empty_table_with_the_same_columns(base, tuned):
    table = contexts_table(base, tuned, SAE, [], "chat", lambda ids: [str(i) for i in ids])
    assert table.num_rows == 0 and table.schema.equals(CONTEXTS_SCHEMA)


def test_a_wrong_feature_or_dictionary_is_refused(base):
    with pytest.raises(AssertionError, match="outside width 30"):
        top_contexts(base, SAE, [30])
    with pytest.raises(StoreError, match="not encoded with dictionary 'other'"):
        top_contexts(base, "other", [1])


def test_a_segment_in_which_nothing_fires(corpus, make_run, two_segments):
    silent_TF = corpus.base_TF.copy()
    for p in two_segments[0]:
        silent_TF[corpus.prompt(p)] = 0
    sae = SaeEntry(name="silent", width=30, sha256="ab" * 32)
    run = make_run("silent", corpus, silent_TF, two_segments, sae=sae)
    got = [(c.prompt, c.position) for c in top_contexts(run, "silent", [29])[29]]
    assert got == [(c[0], c[1]) for c in brute_force(corpus, silent_TF, 29, 8, 12)]
