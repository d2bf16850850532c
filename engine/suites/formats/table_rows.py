"""Comma-separated tables and plain lists of questions, one a line."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from ft_audit.engine.suites.formats.record import Record
from ft_audit.errors import DataError


def read_csv(path: Path, suite: str) -> Iterator[Record]:
    """Yield every row of a table with a header; lines before it that start with # are comments.

    Raises:
        DataError: the file is not UTF-8, or a cell is longer than a table's may be.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(_without_comments(file))
            for row, fields in enumerate(reader):
                where = f"{path}: table row {row}"
                # A row longer than the header keeps its surplus under None, a shorter one has None in it.
                known = {str(k): v for k, v in fields.items() if k is not None and v not in (None, "")}
                yield Record(known, where, f"{path.name}#{row}", row, suite)
        except UnicodeDecodeError as err:
            raise DataError(f"{path}: not UTF-8 ({err.reason}); save the file as UTF-8") from err
        except csv.Error as err:
            raise DataError(f"{path}: no table of comma-separated values ({err})") from err


def read_lines(path: Path, suite: str) -> Iterator[Record]:
    """Yield every non-blank line as a question.

    Raises:
        DataError: the file is not UTF-8.
    """
    with path.open(encoding="utf-8-sig") as file:
        try:
            lines = ((number, line.strip()) for number, line in enumerate(file, start=1) if line.strip())
            for row, (number, line) in enumerate(lines):
                yield Record({"prompt": line}, f"{path}:{number}", f"{path.name}:{number}", row, suite)
        except UnicodeDecodeError as err:
            raise DataError(f"{path}: not UTF-8 ({err.reason}); save the file as UTF-8") from err


def read_seeds(path: Path, document: Mapping[str, object], suite: str) -> Iterator[Record]:
    """Yield the seeds of a PyRIT seed data set (`.prompt`, YAML with a list `seeds`) as questions.

    Raises:
        DataError: `seeds` is no list.
    """
    seeds = document.get("seeds")
    if not isinstance(seeds, list):
        raise DataError(f"{path}: seeds is no list; a PyRIT seed data set has one")
    for row, seed in enumerate(seeds):
        where = f"{path}: seed {row}"
        value = seed.get("value") if isinstance(seed, dict) else seed
        fields: Mapping[str, object] | DataError = (
            {"prompt": value} if isinstance(value, str) else DataError(f"{where}: no text in its value")
        )
        yield Record(fields, where, f"{path.name}#{row}", row, suite)


def _without_comments(lines: Iterator[str]) -> Iterator[str]:
    header = False
    for line in lines:
        header = header or not line.startswith("#")
        if header:
            yield line
