"""Common encodings are read, alone and in chains of two, and plain text stays plain."""

import pytest

from ft_audit.engine.decipher.encodings import decode_common
from ft_audit.engine.decipher.reference import Reference, fit_reference
from ft_audit.engine.requests.codec import AnyStep, Codec
from ft_audit.engine.requests.steps import Join, Reverse, Rotate, Write

B64 = Write(alphabet="base64")
CHAINS: dict[str, tuple[AnyStep, ...]] = {
    **{
        name: Codec.model_validate({"steps": [{"step": "write", "alphabet": name}]}).steps
        for name in ("base64", "base32", "hex", "percent", "binary", "decimal", "atbash", "leet")
    },
    "rot 7": (Rotate(shift=7),),
    "reversed": (Reverse(unit="text"),),
    "reversed letters": (Reverse(unit="letters"),),
    "joined": (Join(separator="|"),),
    "rot 13 in base64": (Rotate(shift=13), B64),
    "base64 twice": (B64, B64),
    "reversed in hex": (Reverse(unit="text"), Write(alphabet="hex")),
}


@pytest.mark.parametrize("name", CHAINS)
def test_an_encoding_is_read(name: str, messages: list[str], reference: Reference) -> None:
    codec = Codec(steps=CHAINS[name])
    best = decode_common([codec.encode(text) for text in messages], reference)[0]
    assert best.holds
    assert best.codec == codec
    assert best.score > max(best.undecoded_score, best.control_score) + 0.5


@pytest.mark.parametrize("name", ["morse", "positions"])
def test_an_encoding_that_loses_marks_gives_the_words(
    name: str, messages: list[str], reference: Reference
) -> None:
    codec = Codec.model_validate({"steps": [{"step": "write", "alphabet": name}]})
    best = decode_common([codec.encode(text) for text in messages], reference)[0]
    assert best.holds and best.codec == codec and "what do you think" in best.examples[0].decoded


def test_plain_text_has_no_encoding(messages: list[str], reference: Reference) -> None:
    assert not any(found.holds for found in decode_common(messages, reference))


def test_english_letters_do_where_there_is_no_reference(messages: list[str]) -> None:
    texts = [B64.encode(text) for text in messages]
    best = decode_common(texts, fit_reference([]))[0]
    assert best.codec == Codec(steps=(B64,)) and best.holds
