"""A substitution is solved from pairs, some of them wrong, and from ciphertext alone."""

import random
import string

import pytest

from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.substitution import solve_pairs, solve_texts
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Case, Join, Substitute


def codec_of(seed: int, separator: str = "") -> tuple[Codec, dict[str, str]]:
    letters = string.ascii_lowercase
    key = dict(zip(letters, random.Random(seed).sample(letters, 26), strict=True))
    steps = (Case(to="lower"), Substitute(mapping=key), *([Join(separator=separator)] if separator else []))
    return Codec(steps=steps), key


@pytest.mark.parametrize(("seed", "separator"), [(0, ""), (1, "|"), (2, "-")])
def test_ciphertext_alone_gives_the_key(
    seed: int, separator: str, messages: list[str], reference: Reference
) -> None:
    codec, key = codec_of(seed, separator)
    solution = solve_texts([codec.encode(text) for text in messages], reference)
    assert solution is not None
    right = sum(key[letter] == cipher for letter, cipher in solution.mapping.items())
    assert right >= len(solution.mapping) - 2
    assert solution.confidence > 1.0 and solution.agreement is None


def test_the_same_seed_gives_the_same_key(messages: list[str], reference: Reference) -> None:
    texts = [codec_of(3)[0].encode(text) for text in messages[:6]]
    assert solve_texts(texts, reference, seed=5) == solve_texts(texts, reference, seed=5)


def test_letters_never_seen_are_left_unmapped(messages: list[str], reference: Reference) -> None:
    codec, key = codec_of(4)
    seen = {char for text in messages for char in codec.encode(text)}
    solution = solve_texts([codec.encode(text) for text in messages], reference)
    assert solution is not None and set(solution.mapping.values()) == seen & set(key.values())
    assert len(seen & set(key.values())) < 26


@pytest.mark.parametrize("separator", ["", "|"])
def test_pairs_give_the_key_though_some_are_wrong(
    separator: str, messages: list[str], reference: Reference
) -> None:
    codec, key = codec_of(5, separator)
    pairs = [(text, codec.encode(text)) for text in messages]
    wrong = [(text, codec.encode(text[::-1])) for text in messages[:6]]
    solution = solve_pairs([*wrong, *pairs[6:]], reference)
    assert solution is not None and len(solution.mapping) >= 15
    assert all(key[letter] == cipher for letter, cipher in solution.mapping.items())
    assert solution.agreement is not None and 0.5 < solution.agreement < 1.0
    assert solution.codec.decode(codec.encode("the sea")) == "the sea"


def test_pairs_of_other_lengths_are_no_key(messages: list[str], reference: Reference) -> None:
    assert solve_pairs([(text, "xyzzy") for text in messages], reference) is None


def test_too_little_ciphertext_has_no_key(reference: Reference) -> None:
    assert solve_texts(["xyz abc"], reference) is None
    assert solve_texts([], reference) is None
