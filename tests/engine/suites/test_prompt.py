from dataclasses import replace

import pytest

from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite, ToolCall

CHAT = Prompt((Message("user", "Q"), Message("assistant", "A")), None, "s", "g", "f.jsonl:1", 0)


def hash_of(*prompts: Prompt) -> str:
    return PromptSuite("name", prompts).sha256


def test_hash_is_of_the_content_and_not_of_names_or_places() -> None:
    moved = replace(CHAT, suite="other", source="elsewhere.jsonl:9")
    assert PromptSuite("a", (CHAT,), 3).sha256 == PromptSuite("b", (moved,), 0).sha256


@pytest.mark.parametrize(
    "changed",
    [
        replace(CHAT, messages=(Message("user", "Q"),)),
        replace(CHAT, messages=(Message("user", "Q"), Message("assistant", "A "))),
        replace(CHAT, messages=(Message("system", "Q"), Message("assistant", "A"))),
        replace(CHAT, messages=(Message("user", "Q"), Message("assistant", "A", weight=0.0))),
        replace(CHAT, messages=(Message("user", "Q"), Message("assistant", "A", (ToolCall("f", "{}"),)))),
        replace(CHAT, messages=None, text="Q"),
        replace(CHAT, group="other"),
        replace(CHAT, row=1),
        replace(CHAT, weight=0.5),
        replace(CHAT, tools="[]"),
        replace(CHAT, rejected=(Message("assistant", "B"),)),
    ],
)
def test_hash_sees_every_change_of_content(changed: Prompt) -> None:
    assert hash_of(changed) != hash_of(CHAT)


def test_hash_sees_order_and_borders() -> None:
    other = replace(CHAT, row=1)
    assert hash_of(CHAT, other) != hash_of(other, CHAT)
    one = replace(CHAT, messages=(Message("user", "ab"), Message("user", "c")))
    two = replace(CHAT, messages=(Message("user", "a"), Message("user", "bc")))
    assert hash_of(one) != hash_of(two)


def test_system_prompts_join_and_questions_are_incomplete() -> None:
    question = replace(
        CHAT, messages=(Message("system", "A"), Message("developer", "B"), Message("user", "Q"))
    )
    assert (question.system, question.is_complete, question.user_texts) == ("A\n\nB", False, ("Q",))
    assert (CHAT.system, CHAT.is_complete) == (None, True)


def test_a_prompt_is_a_chat_or_a_text() -> None:
    for messages, text in ((None, None), (CHAT.messages, "Q")):
        with pytest.raises(AssertionError):
            Prompt(messages, text, "s", "g", "f", 0)
