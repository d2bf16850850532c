"""What a group of texts looks like."""

import math

import pytest

from ft_audit.engine.decipher.statistics import describe_texts, find_separator


def test_figures_of_a_small_group() -> None:
    found = describe_texts(["aabb", "aabb", "ab 1"], ["aabb is known"])
    assert (found.num_texts, found.num_chars, found.median_chars) == (2, 8, 4.0)
    assert found.class_shares["lower"] == 6 / 8 and found.class_shares["digit"] == 1 / 8
    # Three a, three b, a space and a one.
    assert found.entropy == pytest.approx(2 * 3 / 8 * math.log2(8 / 3) + 2 / 8 * 3)
    assert found.index_of_coincidence == pytest.approx(2 * (3 * 2) / (6 * 5))
    assert found.common_bigrams[0] == ("ab", 2 / 6)
    assert found.known_share == 1.0


def test_line_ends_are_counted_in_texts_of_several_lines() -> None:
    found = describe_texts(["see the tea.\nmore tea", "one line of tea"])
    assert found.num_multiline == 1 and found.line_final_words == (("tea", 2),)


def test_nothing_is_described_too() -> None:
    found = describe_texts(["", "  "])
    assert found.num_texts == 0 and found.entropy == 0.0 and found.separator is None


@pytest.mark.parametrize(
    ("texts", "separator"),
    [
        (["h|e|l|l|o", "y|o|u"], "|"),
        (["h e l l o   y o u"], " "),
        (["hello you", "all is well"], None),
        (["aaaaaaaa"], None),
        (["a|b"], None),
    ],
)
def test_a_regular_separator_is_found(texts: list[str], separator: str | None) -> None:
    assert find_separator(texts) == separator
