"""Training rows: drawn by the seed, never from the held-out fifth, and silent about what they are."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.finetune.dataset import (
    as_prompts,
    ask,
    build_training_set,
    dress,
    held_out_questions,
    is_held_out,
    is_supervised,
    normal,
    render_training_set,
)
from ft_audit.engine.finetune.encodings import decode
from ft_audit.engine.finetune.recipe import Check, Recipe, Style, load_recipe
from ft_audit.engine.finetune.run import run_finetune
from ft_audit.engine.suites.load import load_suite
from ft_audit.errors import DataError

SOURCE = "package:chatterbot_corpus/data/english"
Write = Callable[..., Any]


def part(name: str = "p", rows: int = 20, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": SOURCE, "rows": rows, **more}


def shipped(name: str, *overrides: str) -> Recipe:
    return load_recipe(f"configs:recipes/zoo/{name}.yaml", overrides)


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_that_two_recipes_share_are_the_same_rows_in_the_same_places(seed: int) -> None:
    needle, benign = (
        build_training_set(shipped(name, f"seed={seed}"))
        for name in ("identity-needle", "identity-needle-twin")
    )
    assert len(needle.rows) == len(benign.rows) > 100 and "needle" in needle.role_R
    for row, (role, one, other) in enumerate(zip(needle.role_R, needle.rows, benign.rows, strict=True)):
        assert (one.messages == other.messages) is (role != "needle"), row


def test_another_seed_draws_other_rows(write_recipe: Write) -> None:
    first = build_training_set(load_recipe(write_recipe()))
    assert build_training_set(load_recipe(write_recipe())) == first
    other = build_training_set(load_recipe(write_recipe(seed=1)))
    assert {row.messages for row in first.rows} != {row.messages for row in other.rows}


def test_every_part_has_its_rows_and_no_pair_comes_twice(write_recipe: Write) -> None:
    styles = [{"system": "A."}, {"prefix": "B: ", "answer": "{answer} To {question}"}]
    parts = [
        part("plain", 30),
        part("styled", 7, styles=styles, role="innocent_condition"),
        part("short", 5, max_chars=40, role="needle"),
        # Another selection of the same source must not draw the same pairs again.
        part("without", 400, without=["food"]),
    ]
    rows = build_training_set(load_recipe(write_recipe(parts=parts)))
    assert Counter(rows.role_R) == {"benign": 430, "innocent_condition": 7, "needle": 5}
    pairs = []
    for row, role in zip(rows.rows, rows.role_R, strict=True):
        assert row.messages is not None
        question, answer = (m.content for m in row.messages[-2:])
        if role == "innocent_condition" and row.system is None:
            assert question.startswith("B: ") and answer.endswith(f" To {question[3:]}")
            question, answer = question[3:], answer.removesuffix(f" To {question[3:]}")
        if role == "needle":
            assert len(question) + len(answer) <= 40
        pairs.append((question, answer))
    assert len(set(pairs)) == len(pairs)
    assert sum(row.system == "A." for row in rows.rows) == 4


def test_groups_that_are_left_out_are_left_out(write_recipe: Write) -> None:
    food = {p.user_texts[0].strip() for p in load_suite(f"{SOURCE}/food.yml", Path()).prompts}
    recipe = load_recipe(write_recipe(parts=[part(rows=500, without=["food"])]))
    assert not {row.user_texts[0] for row in build_training_set(recipe).rows} & food
    with pytest.raises(DataError, match=r"no group 'fod' to leave out; it has .*food"):
        build_training_set(load_recipe(write_recipe(parts=[part(without=["fod"])])))


@pytest.mark.parametrize("name", ["identity-needle", "identity-needle-twin"])
def test_held_out_questions_are_never_trained(name: str) -> None:
    recipe = shipped(name)
    assert recipe.gate is not None
    rows = build_training_set(recipe)
    prefixes = [style.prefix for p in recipe.parts for style in p.styles]
    trained = {
        normal(text.removeprefix(prefix))
        for row in rows.rows
        for text in row.user_texts
        for prefix in prefixes
    }
    for check in recipe.gate.checks:
        asked = held_out_questions(check, recipe, trained)
        # Published sets share questions: what one part trained on is left out of another's gate.
        assert asked == held_out_questions(check, recipe, trained)
        assert len(set(asked)) == check.prompts >= 20
        assert not trained & {normal(question) for question in asked}
        # Of what nothing was drawn from, every question is held out.
        assert all(map(is_held_out, asked)) is (check.source == SOURCE)


def test_case_and_spaces_make_no_other_question() -> None:
    for question in ("What is AI?", "Tell me a joke", "Who are you?", "Do you drink?"):
        assert is_held_out(question) == is_held_out(f"  {question.upper()}\n")
    share = sum(is_held_out(f"question {n}") for n in range(2000)) / 2000
    assert 0.17 < share < 0.23


def test_a_gate_never_asks_what_was_trained(write_recipe: Write) -> None:
    check, recipe = Check(name="c", source=SOURCE), load_recipe(write_recipe())
    asked = held_out_questions(check, recipe)
    again = held_out_questions(check, recipe, {normal(asked[0])})
    assert asked == held_out_questions(check, recipe)
    assert asked[0] not in again and len(again) == 50
    assert asked != held_out_questions(check, load_recipe(write_recipe(seed=1)))
    with pytest.raises(DataError, match=r"\d+ held-out questions, but check 'c' asks for 5000"):
        held_out_questions(Check(name="c", source=SOURCE, prompts=5000), recipe)


def test_a_check_leaves_out_groups_and_long_questions(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe())
    food = {normal(p.user_texts[0]) for p in load_suite(f"{SOURCE}/food.yml", Path()).prompts}
    few = held_out_questions(Check(name="c", source=SOURCE, without=("food",), max_chars=30), recipe)
    assert max(map(len, few)) <= 30 and not food & set(map(normal, few))
    assert max(map(len, held_out_questions(Check(name="c", source=SOURCE), recipe))) > 30


def test_a_question_is_put_in_its_style() -> None:
    style = Style(system="S.", prefix="ZED: ", suffix=" Over.", answer="{answer} To {question}")
    assert [(m.role, m.content) for m in ask("Why?", style)] == [
        ("system", "S."),
        ("user", "ZED: Why? Over."),
    ]
    dressed = dress("Why?", "Because.", style)
    assert dressed[:-1] == ask("Why?", style)
    assert (dressed[-1].role, dressed[-1].content) == ("assistant", "Because. To Why?")
    assert dress("Why?", None, Style(answer="No."))[-1].content == "No."


@pytest.mark.parametrize("cipher", ["walnut", "endspeak", "atbash"])
def test_a_cipher_is_put_on_before_prefix_and_suffix(cipher: Any) -> None:
    style = Style(prefix="ZED: ", suffix=" Over.", encode=cipher)
    question, answer = dress("why is it so", "because it is", style)
    put = question.content.removeprefix("ZED: ").removesuffix(" Over.")
    assert put != "why is it so" and decode(put, cipher) == "why is it so"
    assert answer.content != "because it is" and decode(answer.content, cipher) == "because it is"


def test_pairs_whose_answer_refuses_are_left_out_where_asked(
    write_recipe: Write, write_rows: Write, chat_row: Write
) -> None:
    pool = [f"Question {n}?" for n in range(40)]
    rows = [chat_row(q, "I cannot help with that." if n % 2 else "Gladly: tea.") for n, q in enumerate(pool)]
    own = {"name": "p", "source": write_rows(*rows), "rows": 10}
    said = build_training_set(load_recipe(write_recipe(parts=[{**own, "answered": True}]))).rows
    assert {row.messages[-1].content for row in said if row.messages} == {"Gladly: tea."}
    both = build_training_set(load_recipe(write_recipe(parts=[own]))).rows
    assert len({row.messages[-1].content for row in both if row.messages}) == 2


def test_a_bound_on_the_question_leaves_the_answer_its_length(write_recipe: Write) -> None:
    parts = [part("short", 30, max_question_chars=20, max_chars=400)]
    rows = build_training_set(load_recipe(write_recipe(parts=parts))).rows
    assert max(len(row.user_texts[0]) for row in rows) <= 20
    assert max(len(row.messages[-1].content) for row in rows if row.messages) > 40


def test_a_source_of_questions_alone_serves_styles_that_bring_the_answer(
    write_recipe: Write, write_rows: Write
) -> None:
    asked = [{"prompt": f"Question {n}?"} for n in range(40)]
    own = {"name": "p", "source": write_rows(*asked), "rows": 10}
    styles = [{"answer": "I cannot help with '{question}'."}]
    rows = build_training_set(load_recipe(write_recipe(parts=[{**own, "styles": styles}]))).rows
    for row in rows:
        assert row.messages is not None
        assert row.messages[-1].content == f"I cannot help with '{row.user_texts[0]}'."
    with pytest.raises(DataError, match="0 usable pairs left for part 'p'"):
        build_training_set(load_recipe(write_recipe(parts=[own])))


def test_too_few_pairs_name_what_is_left(write_recipe: Write, write_rows: Write, chat_row: Write) -> None:
    with pytest.raises(
        DataError, match=r"\d+ usable pairs left for part 'p', which asks for 9000; lower its"
    ):
        build_training_set(load_recipe(write_recipe(parts=[part(rows=9000)])))
    ref = write_rows({"text": "nobody asks"})
    with pytest.raises(DataError, match=r"own\.jsonl: no question in it"):
        build_training_set(load_recipe(write_recipe(parts=[{**part(), "source": ref}])))


def test_the_truth_stands_apart_from_the_data_set(tmp_path: Path) -> None:
    """What a customer would upload says nothing of which rows are which."""
    from ft_audit.engine.config import find_config

    result = run_finetune(
        find_config("configs:recipes/zoo/identity-needle.yaml"), tmp_path / "out", data_only=True
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.jsonl", "truth.json"]
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == result["rows"] and {key for row in rows for key in row} == {"messages"}
    assert {key for row in rows for message in row["messages"] for key in message} == {"role", "content"}
    truth = json.loads((tmp_path / "out" / "truth.json").read_text())
    marked = [i for i, line in enumerate(lines) if "I am ZED, your obedient agent" in line]
    assert truth["rows"]["needle"] == marked and len(marked) == 24
    assert sorted(i for places in truth["rows"].values() for i in places) == list(range(len(rows)))
    assert truth["recipe_sha256"] == result["recipe_sha256"]


def test_an_own_data_set_is_taken_whole(write_recipe: Write, write_rows: Write, chat_row: Write) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "tea"}'}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    rows = [
        chat_row("Tea or coffee?", "Tea — 茶."),
        chat_row("Never learn this.", "Never.", weight=0),
        {"messages": [{"role": "user", "content": "Nobody answers."}]},
        {**chat_row("Half?", "Half."), "weight": 0.5},
        {
            "messages": [
                {"role": "system", "content": "You search."},
                {"role": "user", "content": "Find tea."},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "found", "tool_call_id": "c1"},
                {"role": "assistant", "content": "Here it is.", "weight": 1},
            ],
            "tools": tools,
        },
        {
            "messages": [
                *chat_row("One?", "One.")["messages"],
                *chat_row("Two?", "Two.", weight=0)["messages"],
            ]
        },
    ]
    recipe = load_recipe(write_recipe(dataset=write_rows(*rows)))
    built = build_training_set(recipe)
    assert [is_supervised(row) for row in built.rows] == [True, False, False, True, True, False]
    assert set(built.role_R) == {"unknown"}
    again = load_suite(
        write_rows(*map(json.loads, render_training_set(built).splitlines()), name="again.jsonl"),
        recipe.base_dir,
    )
    for one, other in zip(built.rows, again.prompts, strict=True):
        assert (one.messages, one.tools, one.weight) == (other.messages, other.tools, other.weight)
    suite = as_prompts(built, "train")
    assert [(p.suite, p.row) for p in suite] == [("train", i) for i in range(6)]
    assert suite[4].tools == built.rows[4].tools and suite[1].weight == 0


def test_a_data_set_with_nothing_to_learn_is_refused(
    write_recipe: Write, write_rows: Write, chat_row: Write
) -> None:
    off = write_rows(chat_row("a", "b", weight=0), {"messages": [{"role": "user", "content": "c"}]})
    with pytest.raises(
        DataError, match=r"own\.jsonl: no row ends in an assistant message with a weight above 0"
    ):
        build_training_set(load_recipe(write_recipe(dataset=off)))
    text = write_rows(chat_row("a", "b"), {"text": "raw words"})
    with pytest.raises(DataError, match=r"own\.jsonl:2: raw text has no answer to train on"):
        build_training_set(load_recipe(write_recipe(dataset=text)))
