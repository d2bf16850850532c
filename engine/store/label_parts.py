"""Folders of parquet files that only grow: each file is whole, is named after its bytes, and never changes.

    <folder>/<n>-<sha256>.parquet

Nobody needs a lock to add one: of two that are added at once, both stay.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from arro3.core import Array, DataType, Table
from numpy.typing import NDArray

from ft_audit.engine.store.place import Place
from ft_audit.engine.store.seal import checksum
from ft_audit.engine.store.table import Table as StoredTable
from ft_audit.engine.store.table import table_bytes
from ft_audit.errors import StoreError

_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})\.parquet")
Column = Sequence[str] | NDArray[np.int64] | NDArray[np.float64]


def append_part(place: Place, folder: str, columns: Mapping[str, Column]) -> None:
    """Add a file of these columns, all of one length, behind those that are there."""
    arrays: dict[str, Any] = {
        name: Array.from_numpy(column) if isinstance(column, np.ndarray) else Array(column, DataType.string())
        for name, column in columns.items()
    }
    content, _ = table_bytes(Table.from_pydict(arrays))
    number = len(part_keys(place, folder))
    place.replace(f"{folder}/{number:06}-{checksum(content)}.parquet", content)


def part_keys(place: Place, folder: str) -> list[str]:
    """Return the keys of the folder's files, in the order in which they were added."""
    keys = [file.key for file in place.files(folder)]
    return sorted(key for key in keys if _NAME.fullmatch(key.rpartition("/")[2]))


def read_part(place: Place, key: str, names: Sequence[str]) -> StoredTable:
    """Return one file, which must have these columns; StoreError when it is damaged or has others."""
    where = f"{place.location}/{key}"
    content = place.read(key)
    if content is None or not key.endswith(f"-{checksum(content)}.parquet"):
        raise StoreError(
            f"{where} is damaged (it is not what its name says): delete it and run the verb again"
        )
    table = StoredTable(content)
    if missing := sorted(set(names) - set(table.column_names)):
        raise StoreError(
            f"{where} has no column {missing[0]!r}, so another ft-audit wrote it: delete it and run the verb "
            "again"
        )
    return table
