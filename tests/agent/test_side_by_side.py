"""One prompt through both models, token by token."""

from typing import Any

import numpy as np
import pytest

from ft_audit.agent.side_by_side import side_by_side, side_by_side_text
from ft_audit.engine.store import FeatureIndex, Store
from ft_audit.errors import StoreError

SAE = "demo-sae"


def test_every_firing_of_the_prompt_is_there_and_none_of_another(labelled: Any) -> None:
    feature = labelled.evidence.feature(SAE, "chat", 33)
    index = FeatureIndex(Store(labelled.config.store).open_diff(labelled.evidence.diff_id))
    total = 0.0
    for prompt in range(20):
        found = side_by_side(labelled.evidence, feature, prompt)
        assert len(found.tokens) == len(found.base) == len(found.tuned) == 30
        for side in ("base", "tuned"):
            fired = index.tokens_of(SAE, "chat", side, 33)
            here = fired.prompt_N == prompt
            activations = np.array(getattr(found, side))
            assert np.flatnonzero(activations).tolist() == fired.position_N[here].tolist()
            assert activations[activations > 0].tolist() == fired.value_N[here].tolist()
            total += here.sum()
    assert total == 48


def test_the_text_has_a_line_a_token_and_the_longest_bar_at_the_peak(labelled: Any) -> None:
    feature = labelled.evidence.feature(SAE, "chat", 33)
    found = side_by_side(labelled.evidence, feature, 3)
    head, *lines = side_by_side_text(found).splitlines()
    assert head.split() == ["token", "base", "tuned"] and len(lines) == 30
    peak = int(np.argmax(np.maximum(found.base, found.tuned)))
    bars = [max((len(word) for word in line.split() if set(word) == {"█"}), default=0) for line in lines]
    assert bars[peak] == max(bars) == 24
    assert [bar > 0 for bar in bars] == [max(pair) > 0 for pair in zip(found.base, found.tuned, strict=True)]


def test_without_the_copy_sorted_by_feature_the_fix_is_named(benign: Any) -> None:
    feature = benign.evidence.feature(SAE, "chat", 33)
    with pytest.raises(StoreError, match=r"set `precompute.feature_index: true`"):
        side_by_side(benign.evidence, feature, 0)
