"""One raw row as a prompt."""

from collections.abc import Callable, Mapping

import pytest

from ft_audit.engine.suites.formats.record import Record, as_fields
from ft_audit.engine.suites.formats.shapes import prompt_from_record
from ft_audit.engine.suites.prompt import Prompt


@pytest.fixture(scope="session")
def read_row() -> Callable[[object], Prompt]:
    def read(value: object) -> Prompt:
        fields = as_fields(value, "train.jsonl:7")
        assert isinstance(fields, Mapping | Exception)
        return prompt_from_record(Record(fields, "train.jsonl:7", "train.jsonl:7", 6, "train"))

    return read
