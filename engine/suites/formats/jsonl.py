"""JSON lines, plain or gzipped, one row at a time."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from ft_audit.engine.suites.formats.record import Record, as_fields
from ft_audit.errors import DataError


def read_jsonl(path: Path, suite: str) -> Iterator[Record]:
    """Yield every non-blank line as a row, in constant memory; a line that is no JSON yields its error."""
    row = 0
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            yield Record(_decode(line, where), where, f"{path.name}:{number}", row, suite)
            row += 1


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _decode(line: bytes, where: str) -> Mapping[str, object] | DataError:
    try:
        value: object = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        return DataError(f"{where}: not UTF-8 (byte {err.start}: {err.reason}); save the file as UTF-8")
    except json.JSONDecodeError as err:
        return DataError(
            f"{where}: not JSON ({err.msg}, column {err.colno}); every line must be one whole JSON object"
        )
    except RecursionError:
        return DataError(f"{where}: nested too deeply to be a training row; remove the line")
    return as_fields(value, where)
