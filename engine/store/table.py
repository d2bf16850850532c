"""A stored table: columns read from a parquet file, as numpy arrays or as Python values."""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
from arro3.core import ChunkedArray, DataType
from arro3.core import Table as ArrowTable
from arro3.core.types import ArrowStreamExportable
from arro3.io import read_parquet, write_parquet
from numpy.typing import NDArray

# One batch for the tables we write; a longer one comes in several, which makes no difference to a reader.
ROWS_PER_BATCH = 1 << 20


class Table:
    """A table of a diff in memory; reading and writing parquet alone needs no full Arrow installation."""

    def __init__(self, content: bytes) -> None:
        self._table = read_parquet(BytesIO(content), batch_size=ROWS_PER_BATCH).read_all()
        self._values: dict[str, list[Any]] = {}

    @property
    def num_rows(self) -> int:
        return self._table.num_rows

    @property
    def column_names(self) -> list[str]:
        return self._table.column_names

    def values(self, name: str) -> list[Any]:
        """Return one column as Python values, None for empty ones; KeyError when there is no such column."""
        if name not in self._values:
            column = self._column(name)
            self._values[name] = list(column.to_pylist()) if len(column) else []
        return self._values[name]

    def array(self, name: str) -> NDArray[Any]:
        """Return one column as an array: numbers as stored, NaN for empty ones; else objects."""
        column = self._column(name)
        numeric = any(holds(column.type) for holds in (DataType.is_floating, DataType.is_integer))
        if numeric and len(column) and not column.null_count:
            numbers: NDArray[Any] = column.to_numpy()
            return numbers
        values = self.values(name)
        if numeric:
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        objects = np.empty(len(values), dtype=object)
        objects[:] = values
        return objects

    def records(self, indices: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Return rows as dicts: all of them, or those at these positions, in that order."""
        columns = {name: self.values(name) for name in self.column_names}
        chosen = range(self.num_rows) if indices is None else indices
        return [{name: values[index] for name, values in columns.items()} for index in chosen]

    def _column(self, name: str) -> ChunkedArray:
        if name not in self.column_names:
            raise KeyError(name)
        return self._table.column(name)


def table_bytes(table: ArrowStreamExportable) -> tuple[bytes, int]:
    """Return any Arrow table, pyarrow's for one, as a parquet file, and its number of rows."""
    data, file = ArrowTable.from_arrow(table), BytesIO()
    write_parquet(data, file, compression="zstd(3)")
    return file.getvalue(), data.num_rows
