import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_audit.engine.suites.formats import json_list
from ft_audit.engine.suites.formats.hub import read_hub
from ft_audit.engine.suites.formats.json_list import read_json_list
from ft_audit.engine.suites.formats.jsonl import read_jsonl
from ft_audit.engine.suites.formats.parquet import read_parquet
from ft_audit.engine.suites.formats.record import Record
from ft_audit.errors import DataError


def read_all(records: Iterator[Record]) -> list[object]:
    return [r.fields if not isinstance(r.fields, DataError) else str(r.fields) for r in records]


def test_jsonl_counts_lines_and_rows_apart(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xc3\xa9"}\n   \n{"a": 3}')
    records = list(read_jsonl(path, "train"))
    assert [r.fields for r in records] == [{"a": 1}, {"a": "é"}, {"a": 3}]
    assert [(r.row, r.source) for r in records] == [
        (0, "train.jsonl:1"),
        (1, "train.jsonl:3"),
        (2, "train.jsonl:5"),
    ]


def test_gzipped_jsonl_reads_alike(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert read_all(read_jsonl(path, "train")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"a": 1,, "b": 2}', "not JSON (Expecting property name enclosed in double quotes, column 9)"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7"),
        (b"[1]", "the row is a list, not an object"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_lines_name_file_and_line_and_the_next_line_is_read(
    tmp_path: Path, line: bytes, complaint: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    first, error, last = read_all(read_jsonl(path, "train"))
    assert (first, last) == ({"a": 0}, {"a": 2})
    assert str(error).startswith(f"{path}:2: ")
    assert complaint in str(error)


rows = st.lists(
    st.dictionaries(
        st.text(max_size=4), st.one_of(st.text(max_size=30), st.integers(), st.lists(st.booleans()))
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(rows=rows, indent=st.sampled_from([None, 1]), chunk=st.integers(2, 90))
def test_json_list_streams_what_json_loads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], indent: int | None, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("list") / "rows.json"
    path.write_text("\n " + json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        assert read_all(read_json_list(path, "rows")) == rows


def test_json_list_knows_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\n[\n{"a": 1},\n\n{"a":\n2}, {"a": 3}\n]\n')
    assert [r.source for r in read_json_list(path, "rows")] == ["rows.json:3", "rows.json:5", "rows.json:6"]


@pytest.mark.parametrize(
    ("end", "line"),
    [('{"a": "cut of', 4), ("", 4), ('{"a": oops}, {"a": 3}]', 4), ('\n\n{"a": 1 "b"}]', 6)],
)
def test_damaged_list_gives_what_is_whole_and_one_error(tmp_path: Path, end: str, line: int) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n{"a": 1},\n{"a": 2},\n' + end)
    first, second, error = read_all(read_json_list(path, "rows"))
    assert (first, second) == ({"a": 1}, {"a": 2})
    assert str(error).startswith(f"{path}:{line}: not JSON")
    assert "after 2 rows" in str(error)


def test_json_list_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": 1}, {"a": "\xff"}]')
    assert "not UTF-8" in str(read_all(read_json_list(path, "rows"))[-1])


def test_parquet_rows_in_order_and_damage_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    chats = [[{"role": "user", "content": f"q{i}"}] for i in range(3000)]
    pq.write_table(pa.table({"messages": chats, "empty": [None] * 3000}), path, row_group_size=500)
    records = list(read_parquet(path, "train"))
    assert [r.fields for r in records[:1]] == [{"messages": chats[0]}]
    assert [r.row for r in records] == list(range(3000))
    assert records[-1].fields == {"messages": chats[-1]}
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match=r"train.parquet: cannot be read as parquet"):
        next(read_parquet(path, "train"))


def test_hub_layout_streams_and_an_unknown_split_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "HelpSteer"
    folder.mkdir()
    lines = [json.dumps({"prompt": f"q{i}", "response": "a", "helpfulness": 4}) for i in range(5)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    records = list(read_hub(str(folder), "train", "HelpSteer"))
    assert [dict(r.fields)["prompt"] for r in records if not isinstance(r.fields, DataError)] == [
        f"q{i}" for i in range(5)
    ]
    assert [r.row for r in records] == list(range(5))
    with pytest.raises(DataError, match="no split 'test' of such a data set"):
        next(read_hub(str(folder), "test", "HelpSteer"))
