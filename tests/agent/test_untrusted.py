"""Quoted text: everything in it can be seen, and nothing in it acts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_audit.agent.untrusted import is_hidden, pieces, reveal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mb", "a[ESC][31mb"),
        ("\u202eevil\u202c", "[RLO]evil[PDF]"),
        ("a\nb\tc\r", "a↵b⇥c[CR]"),
        ("zero\u200bwidth", "zero[ZWSP]width"),
        ("tag \U000e0041", "tag [U+E0041]"),
        ("smuggled \U000e0101", "smuggled [U+E0101]"),
        ("lone \ud800", "lone [U+D800]"),
        ("שלום ascii 日本 é", "שלום ascii 日本 é"),
    ],
)
def test_hidden_characters_are_named(text: str, shown: str) -> None:
    assert reveal(text, 100) == shown


def test_what_is_cut_is_counted() -> None:
    assert reveal("x" * 100_000, 10) == "x" * 10 + "[… 99,990 more characters]"
    assert reveal("x" * 10, 10) == "x" * 10


def test_stacked_marks_stop_at_a_limit() -> None:
    shown = reveal("z" + "\u0301" * 50, 100)
    assert sum(unicodedata.combining(char) > 0 for char in shown) == 4 and shown.count("[U+0301]") == 46


@given(st.text(max_size=80), st.integers(0, 60))
def test_nothing_hidden_is_left_and_nothing_is_lost(text: str, limit: int) -> None:
    shown = list(pieces(text, limit))
    assert not any(is_hidden(char) for char in reveal(text, limit))
    # One piece a hidden character, so the shown characters add up to what was asked for.
    length = sum(len(piece.text) if piece.kind == "text" else piece.kind != "cut" for piece in shown)
    assert length == min(len(text), limit)
