"""The encodings that a training set's rows are written in, as conditions: probes can be asked in them too."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ft_audit.engine.decipher.frame import without_frame
from ft_audit.engine.decipher.reference import Reference, fit_reference
from ft_audit.engine.decipher.workbench import decipher, is_plain
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Case, Hide
from ft_audit.engine.suites.condition import MAX_SURPRISE, Condition
from ft_audit.engine.suites.prompt import Prompt

MAX_ENCODINGS = 3
# Read of a group, and of the other rows, which say what plain text looks like here; both spread evenly.
MAX_TEXTS, MAX_REFERENCE = 200, 200
MAX_CHARS = 480
"""Of one text; whole groups of letters in base64 and base32, so that what is cut can still be read."""
MIN_HIDING = 6
"""Rows that must hide a message: thirty places of every group are tried, and few rows agree by chance."""
SAME_ROWS = 0.5
"""Two groups with this share of the smaller one's rows in common show one encoding."""


class _Read(NamedTuple):
    """The rows of a group that an encoding makes plain, and how many others the group has."""

    rows: tuple[int, ...]
    num_others: int
    condition: Condition | None
    codec: Codec


def encoded_conditions(
    prompts: Sequence[Prompt], conditions: Sequence[Condition], min_rows: int
) -> list[Condition]:
    """Return a condition for each encoding that users' messages are written in, the most rows first.

    Looked at are the rows of every known condition, and of all others those that do not read as English: what
    was found under a system prompt is asked under it, what stands alone is asked alone.
    """
    texts = {prompt.row: prompt.user_texts[-1] for prompt in prompts if prompt.user_texts}
    english = fit_reference(())
    groups = {tuple(row for row in c.rows if row in texts): c for c in reversed(conditions)}
    found = [_read(texts, rows, condition, min_rows, english) for rows, condition in groups.items()]
    kept: list[_Read] = []
    # The group that holds the most of it, and the least beside it.
    shown = [read for read in found if read is not None]
    for one in sorted(shown, key=lambda read: (-len(read.rows), read.num_others)):
        if not any(_same(one.rows, other.rows) for other in kept):
            kept.append(one)
    told = {row for read in kept for row in read.rows}
    rest = tuple(r for r, text in texts.items() if r not in told and not is_plain(text, english))
    if (read := _read(texts, rest, None, min_rows, english)) is not None:
        kept.append(read)
    return [_condition(read, len(prompts)) for read in kept[:MAX_ENCODINGS]]


def _read(
    texts: Mapping[int, str],
    rows: tuple[int, ...],
    condition: Condition | None,
    min_rows: int,
    english: Reference,
) -> _Read | None:
    """Return the encoding of a group of rows, with the other rows as plain text."""
    if len(rows) < min_rows:
        return None
    chosen = set(rows)
    others = [text for row, text in texts.items() if row not in chosen]
    findings = decipher(_spread([texts[row] for row in rows], MAX_TEXTS), _spread(others, MAX_REFERENCE))
    if findings.nothing_found:
        return None
    codec = findings.explanations[0].codec
    bare = dict(zip(rows, without_frame([texts[row] for row in rows]), strict=True))
    told = tuple(row for row in rows if _tells(codec, bare[row], english))
    if len(told) < (max(min_rows, MIN_HIDING) if _hides(codec) else min_rows):
        return None
    return _Read(told, len(rows) - len(told), condition, _as_written(codec, [bare[row] for row in told]))


def _as_written(codec: Codec, texts: Sequence[str]) -> Codec:
    """Return the codec with everything in lower case where the texts are: probes should look like them."""
    if any(text != text.lower() for text in texts) or any(isinstance(step, Case) for step in codec.steps):
        return codec
    return Codec(steps=(Case(to="lower"), *codec.steps))


def _tells(codec: Codec, text: str, english: Reference) -> bool:
    """Return whether a text says more by the codec than as it stands, or has a message at all where one is
    hidden: the text around that reads plainly too."""
    hide = next((step for step in codec.steps if isinstance(step, Hide)), None)
    if hide is not None:
        return len(hide.units(text)) > 1
    said = codec.decodes(text)
    return said is not None and english.characters.score([said]) > english.characters.score([text])


def _hides(codec: Codec) -> bool:
    return any(isinstance(step, Hide) for step in codec.steps)


def _same(rows: tuple[int, ...], others: tuple[int, ...]) -> bool:
    return len(set(rows) & set(others)) >= SAME_ROWS * min(len(rows), len(others))


def _condition(read: _Read, num_rows: int) -> Condition:
    digest = hashlib.sha256(read.codec.model_dump_json().encode()).hexdigest()[:8]
    boilerplate = len(read.rows) > num_rows / 2
    alone = Condition(
        key=f"code-{digest}",
        system=None,
        prefix="",
        rows=read.rows,
        surprise=0.0 if boilerplate else MAX_SURPRISE,
        boilerplate=boilerplate,
        codec=read.codec,
    )
    if read.condition is None:
        return alone
    dressed = replace(
        alone, key=f"{read.condition.key}+{alone.key}", system=read.condition.system, rows=read.rows
    )
    if _hides(read.codec):
        # The openings and ends that its lines share are the carrier's own.
        return dressed
    return replace(
        dressed, prefix=read.condition.prefix, joiner=read.condition.joiner, suffix=read.condition.suffix
    )


def _spread(texts: Sequence[str], most: int) -> Sequence[str]:
    """Return the beginnings of at most so many texts, evenly from all of them."""
    every = max(1, -(-len(texts) // most))
    return [text[:MAX_CHARS] for text in texts[::every]]
