"""From a reference to prompts: every format by one door, streaming or whole."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ft_audit.engine.suites.formats.chatterbot import read_chatterbot
from ft_audit.engine.suites.formats.json_list import is_json_list, read_json_list
from ft_audit.engine.suites.formats.jsonl import read_jsonl
from ft_audit.engine.suites.formats.record import Record
from ft_audit.engine.suites.formats.shapes import prompt_from_record
from ft_audit.engine.suites.formats.table_rows import read_csv, read_lines, read_seeds
from ft_audit.engine.suites.formats.yaml_suite import parse_yaml, read_yaml_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.errors import DataError

OnBadRow = Literal["refuse", "skip"]
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_YAML = (".yaml", ".yml", ".prompt")
_READABLE = (*_LINES, ".json", ".parquet", *_YAML, ".csv", ".txt")


@dataclass(slots=True)
class SkipCount:
    """How many rows could not be read, and the first reason; filled while the rows stream by."""

    num_skipped: int = 0
    first: str = field(default="")

    def add(self, err: DataError) -> None:
        """Count one row."""
        self.num_skipped += 1
        self.first = self.first or str(err)


def load_suite(
    ref: str,
    base_dir: Path,
    limit: int | None = None,
    *,
    split: str | None = None,
    on_bad_row: OnBadRow | None = None,
) -> PromptSuite:
    """Return the suite that `ref` names: a file, a folder, `package:`, `configs:` or a hub data set.

    `limit` takes the first rows and reads no further. A row that cannot be read is refused, except in a
    published corpus (`package:`), which no user can mend: there it is skipped and counted in `num_skipped`.

    Raises:
        DataError: a row that cannot be read (file, line and fix), or no row at all.
    """
    # Here rather than on top: whoever only streams a file needs no configuration machinery.
    from ft_audit.engine.config.refs import resolve_ref

    resolved = resolve_ref(ref, base_dir)
    action = on_bad_row or ("skip" if ref.startswith("package:") else "refuse")
    skips = SkipCount()
    if isinstance(resolved, str):
        # The only reader with a library behind it that takes seconds to import.
        from ft_audit.engine.suites.formats.hub import read_hub

        records = read_hub(resolved, split or "train", resolved.rsplit("/", 1)[-1])
    else:
        records = open_records(resolved, split)
    prompts = tuple(itertools.islice(_prompts(records, action, skips), limit))
    if not prompts:
        raise _empty(ref, skips)
    return PromptSuite(prompts[0].suite, prompts, skips.num_skipped)


def iter_rows(
    path: Path,
    *,
    split: str | None = None,
    on_bad_row: OnBadRow = "refuse",
    skips: SkipCount | None = None,
) -> Iterator[Prompt]:
    """Yield the prompts of a local file or folder one by one, in constant memory (YAML is read whole).

    Raises:
        DataError: a row that cannot be read (unless skipped, then counted in `skips`), or no row at all.
    """
    count = skips if skips is not None else SkipCount()
    empty = True
    for prompt in _prompts(open_records(path, split), on_bad_row, count):
        empty = False
        yield prompt
    if empty:
        raise _empty(str(path), count)


def open_records(path: Path, split: str | None = None) -> Iterator[Record]:
    """Yield the raw rows of a file or folder, by its suffix and its first bytes.

    Raises:
        DataError: nothing there, or a kind of file that is not read here.
    """
    if path.is_dir():
        yield from _folder_records(path, split)
        return
    if split is not None:
        raise DataError(f"{path}: split {split!r} means nothing for a single file; remove it")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    yield from _file_records(path, _stem(path))


def _prompts(records: Iterator[Record], on_bad_row: OnBadRow, skips: SkipCount) -> Iterator[Prompt]:
    before = skips.num_skipped
    for record in records:
        try:
            # Rows count what was read, so that a row is its place in the suite; `source` keeps the line.
            prompt = prompt_from_record(record._replace(row=record.row - (skips.num_skipped - before)))
        except DataError as err:
            if on_bad_row == "refuse":
                raise
            skips.add(err)
            continue
        yield prompt


def _empty(ref: str, skips: SkipCount) -> DataError:
    why = f" ({skips.num_skipped} rows unreadable, the first: {skips.first})" if skips.num_skipped else ""
    return DataError(f"{ref}: the suite is empty{why}; give at least one row")


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0] or path.name


def _suffix(path: Path) -> str:
    return next((end for end in _READABLE if path.name.lower().endswith(end)), path.suffix)


def _file_records(path: Path, suite: str) -> Iterator[Record]:
    suffix = _suffix(path)
    if suffix in _LINES or (suffix == ".json" and not is_json_list(path)):
        return read_jsonl(path, suite)
    if suffix == ".json":
        return read_json_list(path, suite)
    if suffix == ".parquet":
        # pyarrow takes a moment to import and JSON lines need none of it.
        from ft_audit.engine.suites.formats.parquet import read_parquet

        return read_parquet(path, suite)
    if suffix in _YAML:
        document = parse_yaml(path)
        if isinstance(document, dict) and "conversations" in document:
            return read_chatterbot(path, document, suite)
        if isinstance(document, dict) and "seeds" in document:
            return read_seeds(path, document, suite)
        return read_yaml_suite(path, document, suite)
    if suffix == ".csv":
        return read_csv(path, suite)
    if suffix == ".txt":
        return read_lines(path, suite)
    raise DataError(f"{path}: {suffix or 'no suffix'} is not read here; use {', '.join(_READABLE)}")


def _folder_records(folder: Path, split: str | None) -> Iterator[Record]:
    # Text files beside a data set are its licence and its notes, not questions.
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and _suffix(p) in _READABLE and p.suffix != ".txt"
    )
    if split is not None:
        files = [p for p in files if p.name.startswith(split) or p.parent.name == split]
    # A downloaded data set keeps metadata beside its rows: where there are rows, other files are not them.
    rows = [p for p in files if _suffix(p) in (*_LINES, ".parquet")]
    if not files:
        raise DataError(
            f"{folder}: no rows{f' of split {split!r}' if split else ''} in this folder; "
            f"give one with {', '.join(_READABLE)} files"
        )
    first_row = 0
    for path in rows or files:
        last = first_row - 1
        for record in _file_records(path, folder.name):
            last = first_row + record.row
            yield record._replace(row=last, suite=folder.name)
        first_row = last + 1
