"""Two groups of prompts of the synthetic diff, against the entries of its copy by feature."""

from typing import Any

import numpy as np
import pytest

from ft_audit.agent.tools.auditor import Auditor
from ft_audit.engine.store.feature_index_reader import SIDES
from ft_audit.engine.store.prompt_features import prompt_features

SAE, TOKENS = "demo-sae", 30
ZED, PLAIN = {"suite": "elicited", "group": "zed"}, {"suite": "elicited", "group": "plain"}


def moved(auditor: Auditor, suite: str, feature: int) -> np.ndarray:
    """Tuned less base of the mean activation of every prompt, by the reader of single features."""
    index = auditor.evidence.index
    assert index is not None
    counted_T = index.counted(suite)
    sums = []
    for side in SIDES:
        fired = index.tokens_of(SAE, suite, side, feature)
        kept = counted_T[fired.token_N]
        sums.append(np.bincount(fired.prompt_N[kept], fired.value_N[kept], 20))
    return (sums[1] - sums[0]) / counted_T.reshape(20, TOKENS).sum(1)


def compare(auditor: Auditor, **arguments: Any) -> dict[str, Any]:
    return auditor.call("compare_prompt_groups", arguments).content


def test_probes_under_two_templates_are_compared_probe_by_probe(auditor: Auditor) -> None:
    found = compare(auditor, a=ZED, b=PLAIN, limit=50)
    assert (found["num_a"], found["num_b"], found["paired"]) == (10, 10, True)
    for one in found["features"][:5]:
        moved_P = moved(auditor, "elicited", one["feature"])
        assert one["difference"] == pytest.approx(moved_P[10:].mean() - moved_P[:10].mean(), abs=1e-9)
        steps = [one[f"tuned_{g}"] - one[f"base_{g}"] for g in "ab"]
        assert one["difference"] == pytest.approx(steps[0] - steps[1])
        assert one["low"] < one["difference"] < one["high"]
    sizes = [(one["q_value"] >= 0.05, -abs(one["difference"])) for one in found["features"]]
    assert sizes == sorted(sizes)
    hook = found["residual"][0]
    assert hook["difference"] == pytest.approx(hook["shift_a"] - hook["shift_b"])


def test_a_planted_difference_is_found_and_nothing_else(auditor: Auditor, monkeypatch: Any) -> None:
    index = auditor.evidence.index
    whole = type(index).entries

    def planted(self: Any, sae: str, suite: str, side: str, kept_T: Any, features: Any = None) -> Any:
        found = whole(self, sae, suite, side, kept_T, features)
        value_N = np.ones_like(found.value_N)
        if side == "base":
            return found._replace(value_N=value_N)
        # In the tuned model feature 3 fires hard in each of the second half's prompts, and nowhere else.
        before, after = np.searchsorted(found.feature_N, (3, 4))
        token_N = np.arange(10, 20) * TOKENS + 5
        return type(found)(
            np.concatenate([found.feature_N[:before], np.full(10, 3), found.feature_N[after:]]),
            np.concatenate([found.token_N[:before], token_N, found.token_N[after:]]),
            np.concatenate([value_N[:before], np.full(10, 20.0), value_N[after:]]),
        )

    monkeypatch.setattr(type(index), "entries", planted)
    found = compare(auditor, a=ZED, b=PLAIN, limit=3)
    assert found["features"][0]["feature"] == 3 and found["features"][0]["q_value"] < 0.05
    assert found["num_significant"] <= 2


def test_the_rest_of_the_suite_is_the_default_and_labels_are_shown(auditor: Auditor) -> None:
    train = {"suite": "train", "rows": [0, 1, 2, 3, 4]}
    found = compare(auditor, a=train, b={"suite": "train", "prompts": list(range(5, 20))}, features=[0, 1])
    assert (found["num_a"], found["num_b"], found["paired"], found["total"]) == (5, 15, False, 2)
    labels = {one["feature"]: one["label"] for one in found["features"]}
    assert "orders given to ZED" in labels[0] and labels[1] is None
    rest, plain = compare(auditor, a=ZED), compare(auditor, a=ZED, b=PLAIN)
    assert rest["features"] == plain["features"] and rest["num_b"] == 10
    few = compare(auditor, a={"suite": "elicited", "prompts": [0, 1, 2]}, b=None)
    assert (few["num_a"], few["num_b"], few["paired"]) == (3, 17, False)


def test_features_asked_for_are_those_of_all(auditor: Auditor) -> None:
    index = auditor.evidence.index
    assert index is not None
    prompts = np.array([2, 3, 7])
    all_of, some = (prompt_features(index, SAE, "chat", prompts, chosen) for chosen in (None, [4, 9]))
    kept = np.isin(all_of.feature_N, [4, 9])
    for name in ("feature_N", "place_N", "mean_base_N", "mean_tuned_N", "rate_base_N", "rate_tuned_N"):
        np.testing.assert_array_equal(getattr(all_of, name)[kept], getattr(some, name))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"a": {"suite": "nothing"}}, r"no suite 'nothing'; there are: chat, train, elicited"),
        ({"a": {"suite": "elicited", "group": "x"}}, r"has no group 'x'; it has: plain, zed"),
        ({"a": {"suite": "train", "group": "x"}}, r"has no group 'x'; it has: zed, zed-prefix, pirate"),
        ({"a": {**ZED, "prompts": [1]}}, r"not by several"),
        ({"a": {"suite": "chat", "prompts": [64]}}, r"has prompts 0 to 63, not 64"),
        ({"a": {"suite": "chat", "rows": [1]}}, r"is no training data"),
        ({"a": {"suite": "train", "rows": [1, 500]}}, r"row 500 is not in suite 'train'"),
        ({"a": {"suite": "chat", "prompts": [1, 2]}, "b": ZED}, r"group a has 2 prompts .* 3 are"),
        ({"a": ZED, "b": {"suite": "elicited", "prompts": [5, 6, 7, 11]}}, r"prompt 11 is in both groups"),
        ({"a": ZED, "b": PLAIN, "features": [4000]}, r"no feature 4000"),
    ],
)
def test_groups_that_are_not_there_are_refused(auditor: Auditor, arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare(auditor, **arguments)


def test_groups_that_are_too_large_are_refused_and_chosen_features_are_not(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_audit.agent.tools.contrasts.MAX_FIRINGS", 5_000)
    with pytest.raises(ValueError, match=r"at most some \d+ prompts together, or features by number"):
        compare(auditor, a=ZED, b=PLAIN)
    assert compare(auditor, a=ZED, b=PLAIN, features=[0, 1])["num_tested"] == 2
