"""How text that came out of a model or a data set is shown: cut to a length, with nothing invisible in it."""

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

# Stacked marks beyond this many paint over the lines around them; no living orthography needs more.
MAX_STACKED_MARKS = 4
ELLIPSIS = "…"
_VISIBLE_SPACES = {"\n": "↵", "\t": "⇥"}
_SHORT_NAMES = {
    0x1B: "ESC",
    0x0D: "CR",
    0x00: "NUL",
    0x08: "BS",
    0x200B: "ZWSP",
    0x200C: "ZWNJ",
    0x200D: "ZWJ",
    0x200E: "LRM",
    0x200F: "RLM",
    0x202A: "LRE",
    0x202B: "RLE",
    0x202C: "PDF",
    0x202D: "LRO",
    0x202E: "RLO",
    0x2066: "LRI",
    0x2067: "RLI",
    0x2068: "FSI",
    0x2069: "PDI",
    0xFEFF: "BOM",
}


class Piece(NamedTuple):
    """A run of shown text: plain characters, a line break or tab, or the name of a hidden character."""

    kind: str  # "text" | "space" | "hidden" | "cut"
    text: str
    title: str


def pieces(text: str, limit: int) -> Iterator[Piece]:
    """The text as pieces that are safe to show one after another, at most `limit` of its characters.

    Control, format, bidirectional, private-use, surrogate and unassigned characters come out as
    `hidden` pieces that carry their name; what was cut off is counted in a last `cut` piece.
    """
    plain: list[str] = []
    marks = 0
    for char in text[:limit]:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if char in _VISIBLE_SPACES:
            shown = Piece("space", _VISIBLE_SPACES[char], "")
        elif is_hidden(char) or marks > MAX_STACKED_MARKS:
            shown = Piece("hidden", hidden_name(char), _title(char))
        else:
            plain.append(char)
            continue
        if plain:
            yield Piece("text", "".join(plain), "")
            plain.clear()
        yield shown
    if plain:
        yield Piece("text", "".join(plain), "")
    if len(text) > limit:
        yield Piece("cut", f"{ELLIPSIS} {len(text) - limit:,} more characters", "")


def is_hidden(char: str) -> bool:
    """Whether a reader could not see this character, or would see others moved or recoloured by it."""
    code = ord(char)
    if 0xFE00 <= code <= 0xFE0E or 0xE0100 <= code <= 0xE01EF:  # variation selectors carry smuggled bytes
        return True
    if code in (0x3164, 0x115F, 0x1160, 0xFFA0, 0x2800):  # letters and symbols that draw nothing
        return True
    return unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")


def hidden_name(char: str) -> str:
    """A short name for a hidden character: `ESC`, `RLO`, or its code point."""
    return _SHORT_NAMES.get(ord(char), f"U+{ord(char):04X}")


def reveal(text: str, limit: int) -> str:
    """The text on one line of plain characters, for a terminal or a JSON field: `[ESC]`, `[RLO]`, `↵`."""
    shown = []
    for piece in pieces(text, limit):
        shown.append(f"[{piece.text}]" if piece.kind in ("hidden", "cut") else piece.text)
    return "".join(shown)


def _title(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'control character')}"
