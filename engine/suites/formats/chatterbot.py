"""The ChatterBot corpus: YAML files of short conversations by category."""

from collections.abc import Iterator
from pathlib import Path

from ft_audit.engine.suites.formats.record import Record, kind_of
from ft_audit.errors import DataError


def read_chatterbot(path: Path, document: object, suite: str) -> Iterator[Record]:
    """Yield the opening question and answer of every conversation; what follows in it is not used.

    A conversation without a question and an answer in words yields its error.
    """
    conversations = document.get("conversations") if isinstance(document, dict) else None
    if not isinstance(conversations, list):
        found = kind_of(conversations)
        raise DataError(f"{path}: conversations is {found}; give a list of [question, answer]")
    for number, turns in enumerate(conversations):
        where = f"{path}: conversation {number}"
        fields: dict[str, object] | DataError
        if isinstance(turns, list) and len(turns) >= 2 and all(_is_said(turn) for turn in turns[:2]):
            question, answer = (str(turn) for turn in turns[:2])
            fields = {
                "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                "group": path.stem,
            }
        else:
            fields = DataError(f"{where}: not a question and an answer; give two texts or remove it")
        yield Record(fields, where, f"{path.name}#{number}", number, suite)


def _is_said(turn: object) -> bool:
    # YAML reads an unquoted answer such as 42 as a number, which was meant as a word.
    return (isinstance(turn, str) and bool(turn.strip())) or (
        isinstance(turn, int | float) and not isinstance(turn, bool)
    )
