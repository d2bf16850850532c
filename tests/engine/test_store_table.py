"""Tables of a diff: every kind of value comes back from parquet as it was, missing ones too."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ft_audit.engine.store.table import Table, write_table

TABLE = pa.table(
    {
        "row": pa.array([3, 1, 2], pa.int64()),
        "score": pa.array([0.5, math.inf, -1.0], pa.float32()),
        "gap": pa.array([1.0, None, 3.0], pa.float64()),
        "system": ["You are kind.", None, "ein Gruß 🙂"],
        "tokens": [["a", "b"], [], ["c"]],
        "held": [True, False, True],
        "nothing": pa.array([None, None, None], pa.null()),
    }
)


def stored(table: pa.Table, folder: Path) -> Table:
    assert write_table(table, folder / "t.parquet") == table.num_rows
    return Table(folder / "t.parquet")


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = stored(TABLE, tmp_path)
    assert table.column_names == TABLE.column_names
    assert table.num_rows == 3
    assert table.records() == TABLE.to_pylist()


def test_others_can_read_what_is_written(tmp_path: Path) -> None:
    stored(TABLE, tmp_path)
    assert pq.read_table(tmp_path / "t.parquet").equals(TABLE)


def test_numbers_come_as_they_are_stored_and_missing_ones_as_nan(tmp_path: Path) -> None:
    table = stored(TABLE, tmp_path)
    assert table.array("row").dtype == np.int64
    assert table.array("score").dtype == np.float32
    np.testing.assert_array_equal(table.array("gap"), [1.0, np.nan, 3.0])
    assert table.array("system").tolist() == ["You are kind.", None, "ein Gruß 🙂"]


def test_chosen_records_keep_the_order_asked_for(tmp_path: Path) -> None:
    assert [record["row"] for record in stored(TABLE, tmp_path).records([2, 0])] == [2, 3]


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    table = stored(TABLE.slice(0, 0), tmp_path)
    assert table.column_names == TABLE.column_names
    assert (table.num_rows, table.records(), table.values("tokens")) == (0, [], [])
    assert table.array("row").shape == table.array("system").shape == (0,)


def test_a_table_of_several_chunks_is_one_table(tmp_path: Path) -> None:
    table = stored(pa.concat_tables([TABLE, TABLE.slice(1)]), tmp_path)
    assert table.array("row").tolist() == [3, 1, 2, 1, 2]


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no_such"):
        stored(TABLE, tmp_path).values("no_such")
