"""A label from contexts alone names where they peak, what sets them apart and what is promoted."""

from ft_audit.engine.labels.own_label import own_label, text_of
from ft_audit.engine.store import Context

WORDS = ["the ", "ship ", "sails ", "at ", "sea ", "king ", "of ", "bread ", "boat "]


def context(*words: str, peak: str) -> Context:
    ids = tuple(WORDS.index(f"{word} ") for word in words)
    activations = tuple(float(word == peak) for word in words)
    return Context(prompt=0, position=0, peak=1.0, tokens=ids, activations=activations)


def test_what_a_label_says() -> None:
    contexts = [context("the", "ship", "at", "sea", peak="ship") for _ in range(4)]
    contexts += [context("the", "boat", "at", "sea", peak="boat")]
    label = own_label(contexts, ["the king of bread", "the bread at sea"] * 2, WORDS, [" sail", " deck"])
    assert label == "fires on “ship ” (4 of 5), “boat ” (1 of 5); amid “sea”; promotes “ sail”, “ deck”"


def test_few_contexts_make_no_label() -> None:
    contexts = [context("the", "ship", peak="ship")] * 3
    assert own_label(contexts, [], WORDS, [" sail"]) is None


def test_a_token_beyond_the_vocabulary_is_left_out() -> None:
    assert text_of([0, 99, 1], WORDS) == "the ship "
