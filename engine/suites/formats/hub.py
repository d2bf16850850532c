"""Data sets on the Hugging Face hub, streamed."""

from collections.abc import Iterator

from ft_audit.engine.suites.formats.record import Record, as_fields
from ft_audit.errors import DataError, MissingExtraError


def read_hub(name: str, split: str, suite: str) -> Iterator[Record]:
    """Yield the rows of one split of `name`, without downloading the whole.

    Raises:
        MissingExtraError: the `datasets` library is not installed.
        DataError: the hub has no such data set or split, or cannot be reached.
    """
    try:
        import datasets
    except ModuleNotFoundError as err:
        raise MissingExtraError(
            f"{name}: reading a hub data set needs the `datasets` library: pip install 'ft-audit[train]'"
        ) from err
    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
        for row, value in enumerate(rows):
            where = f"{name} ({split}), row {row}"
            yield Record(as_fields(value, where), where, f"{name} row {row}", row, suite)
    except (OSError, ValueError, RuntimeError) as err:
        raise DataError(
            f"{name}: the hub gives no split {split!r} of such a data set ({type(err).__name__}: {err}); "
            "check the name, the split and the connection, or give a local file"
        ) from err
