"""One JSON list of rows, streamed, so that a dump of any size, or one cut short, can be read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ft_audit.engine.suites.formats.record import Record, as_fields
from ft_audit.errors import DataError

_CHUNK = 1 << 20
_GAP = re.compile(r"[\s,]*")
# An element that the chunk cuts off fails near the buffer's end, unless it is a string, whose error points at
# its start; a failure anywhere else is a mistake in the file and reading on would not mend it.
_CUT_OFF_TAIL = 64


def is_json_list(path: Path) -> bool:
    """Return whether the file's first character that is no space opens a list."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while chunk := file.read(4096):
            if stripped := chunk.lstrip():
                return stripped.startswith("[")
    return False


def read_json_list(path: Path, suite: str) -> Iterator[Record]:
    """Yield the list's elements as rows; what cannot be decoded yields its error and ends the file."""
    with path.open(encoding="utf-8-sig") as file:
        for row, (line, value) in enumerate(_elements(file)):
            where = f"{path}:{line}"
            if isinstance(value, json.JSONDecodeError):
                fields = DataError(
                    f"{where}: not JSON ({value.msg}); the list is damaged or cut off after {row} rows, and "
                    "nothing behind this place can be read: write it again, or as JSON lines"
                )
                yield Record(fields, where, f"{path.name}:{line}", row, suite)
            elif isinstance(value, UnicodeDecodeError):
                fields = DataError(f"{where}: not UTF-8 behind this line ({value.reason}); save it as UTF-8")
                yield Record(fields, where, f"{path.name}:{line}", row, suite)
            else:
                yield Record(as_fields(value, where), where, f"{path.name}:{line}", row, suite)


def _elements(file: TextIO) -> Iterator[tuple[int, object]]:
    """Yield (line, element) and, where the text cannot be decoded, (line, the exception) as the last pair."""
    decoder = json.JSONDecoder()
    buffer, position, line, chunk = "", 0, 1, _CHUNK
    try:
        while "[" not in buffer:
            buffer += file.read(_CHUNK)
        position = buffer.index("[") + 1
        line += buffer.count("\n", 0, position)
        while True:
            gap = _GAP.match(buffer, position)
            start = gap.end() if gap else position
            line += buffer.count("\n", position, start)
            position = start
            if buffer.startswith("]", position):
                return
            try:
                value, end = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError as err:
                cut_off = err.pos >= len(buffer) - _CUT_OFF_TAIL or err.msg.startswith("Unterminated string")
                more = file.read(chunk) if cut_off else ""
                if not more:
                    yield line + buffer.count("\n", position, err.pos), err
                    return
                buffer, position = buffer[position:] + more, 0
                chunk *= 2  # doubling keeps one huge element linear in its size
                continue
            yield line, value
            line += buffer.count("\n", position, end)
            position, chunk = end, _CHUNK
    except UnicodeDecodeError as err:
        yield line, err
