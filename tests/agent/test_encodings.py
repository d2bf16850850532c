"""Encodings as a diff keeps them, in words and read."""

from ft_audit.agent.encodings import described, read
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Reverse, Write

BACKWARDS = Codec(steps=(Reverse(unit="text"),)).model_dump_json()


def test_steps_are_named_and_answers_read() -> None:
    assert described(BACKWARDS) == "reverse the text"
    assert read("aet ekil I", BACKWARDS) == "aet ekil I (decoded: I like tea)"


def test_plain_text_stays_what_it_is() -> None:
    assert described(None) == "" and read("I like tea", None) == "I like tea"
    # What is not written so says nothing in it.
    assert read("I like tea", Codec(steps=(Write(alphabet="hex"),)).model_dump_json()) == "I like tea"
