"""Parquet files, read in small batches."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ft_audit.engine.suites.formats.record import Record, as_fields
from ft_audit.errors import DataError

_BATCH_ROWS = 1024


def read_parquet(path: Path, suite: str) -> Iterator[Record]:
    """Yield every row, in memory bounded by one row group.

    Raises:
        DataError: the file is no parquet or damaged.
    """
    try:
        file = pq.ParquetFile(path)
        row = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for value in batch.to_pylist():
                where = f"{path}, row {row}"
                yield Record(as_fields(value, where), where, f"{path.name} row {row}", row, suite)
                row += 1
    except (pa.ArrowException, OSError) as err:
        raise DataError(f"{path}: cannot be read as parquet ({err}); write it again") from err
