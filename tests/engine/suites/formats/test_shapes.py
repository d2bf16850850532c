from collections.abc import Callable

import pytest

from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.errors import DataError

Read = Callable[[object], Prompt]
USER, GOOD, BAD = Message("user", "Q"), Message("assistant", "good"), Message("assistant", "bad")
Q, A, B = ({"role": m.role, "content": m.content} for m in (USER, GOOD, BAD))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "completion": "good"},
        {"prompt": [Q], "completion": [A]},
        {"prompt": "Q", "response": "good", "helpfulness": 4, "verbosity": 2},
        {"instruction": "Q", "input": "", "output": "good"},
        {"question": "Q", "answer": "good"},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "good"}]},
        {"conversations": [Q, A]},
        {"messages": [Q, A], "prompt": "Q", "prompt_id": "7"},
    ],
    ids="+".join,
)
def test_every_shape_of_one_answered_question_is_one_chat(read_row: Read, row: object) -> None:
    prompt = read_row(row)
    assert prompt.messages == (USER, GOOD)
    assert prompt.rejected is None
    assert prompt.is_complete


@pytest.mark.parametrize(
    "row",
    [
        {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]},
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"prompt": [Q], "chosen": [A], "rejected": [B]},
        {"prompt": "Q", "chosen": [Q, A], "rejected": [Q, B], "messages": [Q, A]},
        {"chosen": [Q, A], "rejected": [Q, B]},
        {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"},
    ],
    ids="+".join,
)
def test_preference_pairs_hold_the_chosen_answer_and_carry_the_rejected(read_row: Read, row: object) -> None:
    prompt = read_row(row)
    assert prompt.messages == (USER, GOOD)
    assert prompt.rejected == (USER, BAD)


def test_context_of_an_instruction_follows_it(read_row: Read) -> None:
    prompt = read_row({"instruction": "Translate", "input": "ciao", "output": "hello"})
    assert prompt.user_texts == ("Translate\n\nciao",)


def test_system_columns_come_first_unless_the_messages_have_one(read_row: Read) -> None:
    system = Message("system", "S")
    turns = [{"from": "human", "value": "Q"}]
    for row in ({"prompt": "Q", "system": "S"}, {"prompt": "Q", "system_prompt": "S"}):
        assert read_row(row).messages == (system, USER)
    assert read_row({"conversations": turns, "system": "S"}).messages == (system, USER)
    pair = read_row({"prompt": "Q", "chosen": "good", "rejected": "bad", "system": "S"})
    assert (pair.messages, pair.rejected) == ((system, USER, GOOD), (system, USER, BAD))
    own = {"role": "system", "content": "own"}
    assert read_row({"prompt": [own, Q], "system": "S"}).system == "own"


def test_text_and_bare_questions(read_row: Read) -> None:
    text = read_row({"text": "Once upon", "weight": 0.5})
    assert (text.messages, text.text, text.weight, text.is_complete) == (None, "Once upon", 0.5, True)
    assert not read_row({"prompt": "Q"}).is_complete


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"mesages": []}, r"mesages \(did you mean messages\?\); a row has messages"),
        ({}, "the row is empty"),
        ({"prompt": None}, "the row is empty"),
        (["Q", "A"], "the row is a list, not an object"),
        ({"text": ""}, "text is empty"),
        ({"text": ["a"]}, "text is a list"),
        ({"prompt": "", "completion": "A"}, "prompt is empty"),
        ({"prompt": "Q", "completion": 3}, "completion is a number"),
        ({"prompt": "Q", "chosen": "A"}, "rejected is missing"),
        ({"chosen": "A", "rejected": "B"}, "a string without a prompt; add a prompt column"),
        ({"input": "Q", "preferred_output": [A], "non_preferred_output": [B]}, "input is a string"),
        ({"input": {"messages": [Q]}, "non_preferred_output": [B]}, "preferred_output is missing"),
        ({"conversations": []}, "conversations is empty"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "from 'alien' is unknown"),
        ({"conversations": [{"from": "gpt", "value": None}]}, "value is null"),
        ({"conversations": [{"from": "gpt", "value": " "}]}, "nobody says anything"),
    ],
)
def test_rows_that_mean_nothing_are_refused(read_row: Read, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        read_row(row)
    assert str(caught.value).startswith("train.jsonl:7: ")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q \ud800", "completion": "good"},
        {"messages": [Q, {"role": "assistant", "content": "\ud800"}]},
        {"prompt": "Q", "chosen": "good", "rejected": "bad\ud800"},
        {"text": "a \ud800", "group": "g"},
        {"text": "a", "group": "\ud800"},
        {"messages": [Q, A], "tools": [{"name": "\ud800"}]},
    ],
    ids="+".join,
)
def test_half_a_character_is_refused_wherever_it_stands(read_row: Read, row: object) -> None:
    with pytest.raises(DataError, match=r"\\ud800 is half of a character"):
        read_row(row)


def test_whole_characters_beyond_the_first_plane_are_read(read_row: Read) -> None:
    assert read_row({"prompt": "\U0001f600", "completion": "é"}).user_texts == ("\U0001f600",)
