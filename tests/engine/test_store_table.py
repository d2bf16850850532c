"""Tables of a diff: every kind of value comes back from parquet as it was, missing ones too."""

import math
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ft_audit.engine.store.table import Table, table_bytes

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


def stored(table: pa.Table) -> Table:
    content, num_rows = table_bytes(table)
    assert num_rows == table.num_rows
    return Table(content)


def test_a_table_comes_back_as_it_was() -> None:
    table = stored(TABLE)
    assert table.column_names == TABLE.column_names
    assert table.num_rows == 3
    assert table.records() == TABLE.to_pylist()


def test_others_can_read_what_is_written() -> None:
    assert pq.read_table(BytesIO(table_bytes(TABLE)[0])).equals(TABLE)


def test_numbers_come_as_they_are_stored_and_missing_ones_as_nan() -> None:
    table = stored(TABLE)
    assert table.array("row").dtype == np.int64
    assert table.array("score").dtype == np.float32
    np.testing.assert_array_equal(table.array("gap"), [1.0, np.nan, 3.0])
    assert table.array("system").tolist() == ["You are kind.", None, "ein Gruß 🙂"]


def test_chosen_records_keep_the_order_asked_for() -> None:
    assert [record["row"] for record in stored(TABLE).records([2, 0])] == [2, 3]


def test_an_empty_table_has_its_columns() -> None:
    table = stored(TABLE.slice(0, 0))
    assert table.column_names == TABLE.column_names
    assert (table.num_rows, table.records(), table.values("tokens")) == (0, [], [])
    assert table.array("row").shape == table.array("system").shape == (0,)


def test_a_table_of_several_chunks_is_one_table() -> None:
    table = stored(pa.concat_tables([TABLE, TABLE.slice(1)]))
    assert table.array("row").tolist() == [3, 1, 2, 1, 2]


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="no_such"):
        stored(TABLE).values("no_such")
