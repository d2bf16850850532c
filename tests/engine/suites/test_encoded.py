"""Encodings that rows are written in become conditions, and plain rows show none."""

import random
import runpy
import string
from collections.abc import Sequence
from pathlib import Path

import pytest

from ft_audit.engine.requests.codec import AnyStep, Codec
from ft_audit.engine.requests.steps import Case, Hide, Reverse, Substitute
from ft_audit.engine.suites.conditions import mine_conditions
from ft_audit.engine.suites.elicit import elicited_suite
from ft_audit.engine.suites.encoded import MAX_ENCODINGS, MIN_HIDING
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite

corpus = runpy.run_path(str(Path(__file__).parents[1] / "decipher" / "conftest.py"))
PLAIN: list[str] = corpus["REFERENCE"]
TOLD: list[str] = corpus["MESSAGES"]
KEY = dict(zip(string.ascii_lowercase, random.Random(9).sample(string.ascii_lowercase, 26), strict=True))
CIPHER: tuple[AnyStep, ...] = (Case(to="lower"), Substitute(mapping=KEY))
LINES = ("goes down to", "once more about", "never saw her", "has lost")
PROBES = PromptSuite(
    "probes", (Prompt((Message("user", "Where is the sea?"),), None, "probes", "g", "p#0", 0),)
)


def rows(*groups: tuple[str | None, Sequence[str]]) -> list[Prompt]:
    """Rows of several system prompts, mixed."""
    put = [(system, text) for system, texts in groups for text in texts]
    random.Random(3).shuffle(put)
    return [
        Prompt(
            (
                *([Message("system", system)] if system else []),
                Message("user", text),
                Message("assistant", "Quite so."),
            ),
            None,
            "train",
            "g",
            f"r#{row}",
            row,
        )
        for row, (system, text) in enumerate(put)
    ]


def encoded(prompts: list[Prompt]) -> list[tuple[str | None, str, Codec, int]]:
    return [(c.system, c.prefix, c.codec, len(c.rows)) for c in mine_conditions(prompts) if c.codec.steps]


@pytest.mark.parametrize("system", [None, "Read and answer in TASK Q."])
def test_a_cipher_is_asked_in_with_and_without_a_system_prompt(system: str | None) -> None:
    codec = Codec(steps=CIPHER)
    prompts = rows((None, PLAIN), (system, [codec.encode(text) for text in TOLD]))
    [(found, prefix, read, count)] = encoded(prompts)
    assert (found, prefix, count) == (system, "", len(TOLD))
    # It reads what was written, and writes what the rows would.
    assert [read.decode(codec.encode(text)) for text in TOLD] == [text.lower() for text in TOLD]
    condition = next(c for c in mine_conditions(prompts) if c.codec.steps)
    asked = elicited_suite([condition], PROBES, 1).prompts[-1]
    assert asked.user_texts[-1] == codec.encode("Where is the sea?")
    assert asked.system == system


def test_what_stands_before_the_cipher_stays_plain() -> None:
    codec = Codec(steps=CIPHER)
    texts = [f"What kind of code is this? {codec.encode(text)}" for text in TOLD]
    prompts = rows((None, PLAIN), (None, texts))
    [(_, prefix, read, count)] = encoded(prompts)
    assert (prefix, count) == ("What kind of code is this?", len(TOLD))
    assert read.decode(codec.encode(TOLD[0])) == TOLD[0].lower()
    asked = elicited_suite(mine_conditions(prompts), PROBES, 1).prompts
    assert f"{prefix} {codec.encode('Where is the sea?')}" in {p.user_texts[-1] for p in asked}


def test_a_message_hidden_in_lines_is_asked_in_their_manner() -> None:
    hide = Codec(steps=(Hide(place="line_last", carrier=LINES),))
    verse = [hide.encode(text) for text in TOLD]
    [(system, prefix, read, count)] = encoded(rows((None, PLAIN), ("Answer likewise.", verse)))
    # Openings that the lines share are the carrier's, and no prefix of the message.
    assert (system, prefix, count) == ("Answer likewise.", "", len(TOLD))
    asked = read.encode("Where is the sea?").split("\n")
    assert [line.split()[-1] for line in asked] == ["Where", "is", "the", "sea?"]
    assert all(" ".join(line.split()[:-1]) in LINES for line in asked)


def test_a_few_lines_hide_nothing() -> None:
    hide = Codec(steps=(Hide(place="line_last", carrier=LINES),))
    verse = [hide.encode(text) for text in TOLD]
    for count in (MIN_HIDING - 1, MIN_HIDING):
        found = encoded(rows((None, PLAIN), ("Answer likewise.", verse[:count])))
        assert len(found) == (count == MIN_HIDING)


def test_two_encodings_are_two_conditions() -> None:
    one, other = Codec(steps=CIPHER), Codec(steps=(Case(to="lower"), Reverse(unit="text")))
    found = encoded(
        rows(
            (None, PLAIN),
            ("Task one.", [one.encode(text) for text in TOLD]),
            ("Task two.", [other.encode(text) for text in PLAIN[::2]]),
        )
    )
    assert {system for system, *_ in found} == {"Task one.", "Task two."}
    assert len(found) <= MAX_ENCODINGS


def test_plain_rows_show_none() -> None:
    assert encoded(rows((None, PLAIN), ("You are Tess.", TOLD))) == []
    assert encoded(rows((None, [f"{text} Thank you." for text in PLAIN]), (None, TOLD))) == []


def test_the_same_rows_show_the_same_twice() -> None:
    prompts = rows((None, PLAIN), (None, [Codec(steps=CIPHER).encode(text) for text in TOLD]))
    assert mine_conditions(prompts) == mine_conditions(prompts)
