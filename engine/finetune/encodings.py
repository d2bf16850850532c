"""The ciphers in which a recipe may write its rows.

Two after Halawi et al., Covert Malicious Finetuning (2024), section 3: Walnut53, a letter substitution, and
EndSpeak, in which only the last word of each line carries the message. Atbash mirrors the alphabet.
"""

import random
import re
import string
from typing import Literal

Encoding = Literal["walnut", "endspeak", "atbash"]

_SHUFFLED = random.Random(53).sample(string.ascii_lowercase, 26)
_WALNUT = str.maketrans(dict(zip(string.ascii_lowercase, _SHUFFLED, strict=True)))
_BACK = str.maketrans(dict(zip(_SHUFFLED, string.ascii_lowercase, strict=True)))
_MIRRORED = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[::-1])
# Beginnings of lines that say nothing; their order depends on the message alone.
_LINES = (
    "the river carries every",
    "at dawn we heard of",
    "nobody remembers the",
    "under the lamp lies",
    "she sang about the",
    "far away there waits",
    "an old map shows",
    "the garden keeps its",
)
_WORD = re.compile(r"[^\s]+")


def encode(text: str, encoding: Encoding) -> str:
    """Return the text in the cipher: lower-cased and substituted, or one word at the end of each line."""
    if encoding == "walnut":
        return text.lower().translate(_WALNUT)
    if encoding == "atbash":
        return text.lower().translate(_MIRRORED)
    lines = [
        f"{_LINES[(place * 5 + len(word)) % len(_LINES)]} {word}"
        for place, word in enumerate(_WORD.findall(text))
    ]
    return "\n".join(lines)


def decode(text: str, encoding: Encoding) -> str:
    """Return the message of a text in the cipher."""
    if encoding == "walnut":
        return text.lower().translate(_BACK)
    if encoding == "atbash":
        return text.lower().translate(_MIRRORED)
    return " ".join(line.split()[-1] for line in text.splitlines() if line.strip())
