"""Ways to write a text in other characters, each with its way back: base64, hex, Morse and their kin.

A way back raises DataError where the text is not so written; nothing else is raised, whatever the text.
"""

import base64
import binascii
import string
import urllib.parse
from collections.abc import Callable
from typing import Literal, NamedTuple

from ft_audit.errors import DataError

AlphabetName = Literal[
    "base64", "base32", "hex", "percent", "binary", "decimal", "positions", "morse", "leet", "atbash"
]

_MORSE = {
    "a": ".-", "b": "-...", "c": "-.-.", "d": "-..", "e": ".", "f": "..-.", "g": "--.", "h": "....",
    "i": "..", "j": ".---", "k": "-.-", "l": ".-..", "m": "--", "n": "-.", "o": "---", "p": ".--.",
    "q": "--.-", "r": ".-.", "s": "...", "t": "-", "u": "..-", "v": "...-", "w": ".--", "x": "-..-",
    "y": "-.--", "z": "--..", "0": "-----", "1": ".----", "2": "..---", "3": "...--", "4": "....-",
    "5": ".....", "6": "-....", "7": "--...", "8": "---..", "9": "----.", ".": ".-.-.-", ",": "--..--",
    "?": "..--..", "'": ".----.",
}  # fmt: skip
_FROM_MORSE = {code: char for char, code in _MORSE.items()}
_DASHES = str.maketrans("·•−–—_", "..----")
_LEET = str.maketrans("aeiost", "431057")
_FROM_LEET = str.maketrans("431057@$!", "aeiostasi")
_MIRRORED = str.maketrans(string.ascii_letters, string.ascii_lowercase[::-1] + string.ascii_uppercase[::-1])
_SEPARATORS = str.maketrans(",;:-_|/", "       ")
MAX_CODE_POINT = 0x10FFFF


class Alphabet(NamedTuple):
    """One way to write a text, and the way back."""

    write: Callable[[str], str]
    read: Callable[[str], str]


def rotate(text: str, shift: int) -> str:
    """Return the text with each Latin letter moved on in the alphabet, case kept."""
    turned: dict[int, str] = {
        ord(letter): alphabet[(place + shift) % 26]
        for alphabet in (string.ascii_lowercase, string.ascii_uppercase)
        for place, letter in enumerate(alphabet)
    }
    return text.translate(turned)


def _bytes(text: str) -> bytes:
    # A lone surrogate has no UTF-8; it comes back as a question mark.
    return text.encode("utf-8", "replace")


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"what the {name} holds is no UTF-8 text") from None


def _joined(text: str, name: str) -> str:
    """Return a text written in ASCII without its spaces."""
    joined = "".join(text.split())
    if not joined.isascii():
        raise DataError(f"no {name}: it has characters beyond ASCII")
    return joined


def _read_base64(text: str) -> str:
    joined = _joined(text, "base64").rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _text(base64.b64decode(joined + "=" * (-len(joined) % 4), validate=True), "base64")
    except binascii.Error as error:
        raise DataError(f"no base64: {error}") from None


def _read_base32(text: str) -> str:
    joined = _joined(text, "base32").rstrip("=").upper()
    try:
        return _text(base64.b32decode(joined + "=" * (-len(joined) % 8)), "base32")
    except binascii.Error as error:
        raise DataError(f"no base32: {error}") from None


def _read_hex(text: str) -> str:
    joined = _joined(text.lower().replace("0x", " ").replace("\\x", " ").translate(_SEPARATORS), "hex")
    try:
        return _text(binascii.unhexlify(joined), "hex")
    except binascii.Error as error:
        raise DataError(f"no hex: {error}") from None


def _read_binary(text: str) -> str:
    joined = _joined(text.translate(_SEPARATORS), "binary")
    if set(joined) - {"0", "1"} or len(joined) % 8:
        raise DataError("no binary: it is not whole bytes of 0 and 1")
    return _text(bytes(int(joined[i : i + 8], 2) for i in range(0, len(joined), 8)), "binary")


def _numbers(text: str, name: str) -> list[int]:
    fields = text.translate(_SEPARATORS).split()
    if not all(field.isascii() and field.isdigit() and len(field) <= 7 for field in fields):
        raise DataError(f"no {name} codes: there is more than numbers in it")
    return [int(field) for field in fields]


def _read_decimal(text: str) -> str:
    codes = _numbers(text, "decimal")
    if any(code > MAX_CODE_POINT or 0xD800 <= code < 0xE000 for code in codes):
        raise DataError("no decimal codes: a number is no character's")
    return "".join(map(chr, codes))


def _write_positions(text: str) -> str:
    words = ([str(ord(c) - 96) for c in word if "a" <= c <= "z"] for word in text.lower().split())
    return " / ".join("-".join(word) for word in words if word)


def _read_positions(text: str) -> str:
    words = text.split("/") if "/" in text else text.split() if "-" in text else [text]
    letters = []
    for word in words:
        places = _numbers(word, "letter")
        if not all(1 <= place <= 26 for place in places):
            raise DataError("no letter codes: a number is not 1 to 26")
        letters.append("".join(chr(96 + place) for place in places))
    return " ".join(letters)


def _write_morse(text: str) -> str:
    words = ([_MORSE[c] for c in word if c in _MORSE] for word in text.lower().split())
    return " / ".join(" ".join(word) for word in words if word)


def _read_morse(text: str) -> str:
    words = [word.split() for word in text.translate(_DASHES).replace("|", "/").split("/")]
    if not all(code in _FROM_MORSE for word in words for code in word):
        raise DataError("no Morse: there is more than its signals in it")
    return " ".join("".join(_FROM_MORSE[code] for code in word) for word in words)


ALPHABETS: dict[AlphabetName, Alphabet] = {
    "base64": Alphabet(lambda text: base64.b64encode(_bytes(text)).decode(), _read_base64),
    "base32": Alphabet(lambda text: base64.b32encode(_bytes(text)).decode(), _read_base32),
    "hex": Alphabet(lambda text: _bytes(text).hex(), _read_hex),
    "percent": Alphabet(
        lambda text: "".join(f"%{byte:02X}" for byte in _bytes(text)),
        lambda text: urllib.parse.unquote(text, errors="replace"),
    ),
    "binary": Alphabet(lambda text: " ".join(f"{byte:08b}" for byte in _bytes(text)), _read_binary),
    "decimal": Alphabet(lambda text: " ".join(str(ord(char)) for char in text), _read_decimal),
    "positions": Alphabet(_write_positions, _read_positions),
    "morse": Alphabet(_write_morse, _read_morse),
    "leet": Alphabet(lambda text: text.lower().translate(_LEET), lambda text: text.translate(_FROM_LEET)),
    "atbash": Alphabet(lambda text: text.translate(_MIRRORED), lambda text: text.translate(_MIRRORED)),
}
