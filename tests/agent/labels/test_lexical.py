"""Likeness by letters: words, their forms and nothing else."""

import pytest

from ft_audit.agent.labels.lexical import similarities

TEXTS = ["he obeys every order", "the ship is at sea", "a loaf of bread"]


@pytest.mark.parametrize(("label", "best"), [("obedient orders", 0), ("ships", 1), ("Bread!", 2)])
def test_the_text_that_shares_words_or_stems_is_nearest(label: str, best: int) -> None:
    found = similarities(label, TEXTS)
    assert max(found) == found[best] > 0


@pytest.mark.parametrize("label", ["", "???", "qqq zzz", "日"])
def test_what_shares_nothing_is_as_far_from_all(label: str) -> None:
    assert similarities(label, TEXTS) == [0.0, 0.0, 0.0]


def test_what_every_text_holds_weighs_little() -> None:
    texts = ["the ship of the king", "the bread of the king", "the song of the king"]
    of_king, of_ship = similarities("king ship", texts)[1], similarities("king ship", texts)[0]
    assert of_ship > 2 * of_king > 0


def test_more_words_do_not_fit_more() -> None:
    short, long = (similarities(label, TEXTS)[1] for label in ("ship", "ship car plane train horse"))
    assert short > long > 0
