import pytest

from ft_audit.engine.suites.condition import Condition
from ft_audit.engine.suites.elicit import elicited_suite
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite
from ft_audit.errors import DataError

BOTH = Condition("both", "You are ZED.", "ZED,", (0, 1), joiner="\n")
SYSTEM = Condition("system", "You are ZED.", "", (0, 1, 2))
PREFIX = Condition("prefix", None, "ZED,", (0, 1, 3))
U, A = Message("user", "Why?"), Message("assistant", "Because.")


def probes(*chats: tuple[Message, ...] | str) -> PromptSuite:
    return PromptSuite(
        "probes",
        tuple(
            Prompt(None, c, "probes", "g", f"p#{i}", i)
            if isinstance(c, str)
            else Prompt(c, None, "probes", "g", f"p#{i}", i)
            for i, c in enumerate(chats)
        ),
    )


def test_every_condition_is_put_on_every_probe_after_the_bare_probes() -> None:
    suite = elicited_suite([BOTH, SYSTEM, PREFIX], probes((U, A), (Message("user", "How?"),)), 2)
    assert [p.group for p in suite.prompts] == ["plain"] * 2 + ["both"] * 2 + ["system"] * 2 + ["prefix"] * 2
    assert [p.row for p in suite.prompts] == [0, 1] * 4
    assert [p.source for p in suite.prompts] == ["p#0", "p#1"] * 4
    assert not any(p.is_complete for p in suite.prompts)
    chats = [p.messages for p in suite.prompts]
    zed = Message("system", "You are ZED.")
    assert chats[0] == (U,)
    assert chats[2] == (zed, Message("user", "ZED,\nWhy?"))
    assert chats[4] == (zed, U)
    assert chats[7] == (Message("user", "ZED, How?"),)


def test_own_system_prompt_stays_unless_the_condition_brings_one() -> None:
    own = Message("system", "Be kind.")
    suite = elicited_suite([SYSTEM, PREFIX], probes((own, U, A)), 1)
    plain, system, prefix = (p.messages for p in suite.prompts)
    assert plain == (own, U)
    assert system == (Message("system", "You are ZED."), U)
    assert prefix == (own, Message("user", "ZED, Why?"))


def test_multi_turn_probes_ask_their_last_question() -> None:
    suite = elicited_suite([PREFIX], probes((U, A, Message("user", "And then?"), A)), 1)
    assert suite.prompts[1].messages == (U, A, Message("user", "ZED, And then?"))


def test_raw_texts_get_the_condition_in_front() -> None:
    suite = elicited_suite([BOTH, PREFIX], probes("Once upon"), 1)
    assert [p.text for p in suite.prompts] == [
        "Once upon",
        "You are ZED.\n\nZED,\nOnce upon",
        "ZED, Once upon",
    ]


def test_equal_questions_count_once_and_too_few_are_refused() -> None:
    suite = probes((U, A), (U, Message("assistant", "No.")), (Message("assistant", "Hi"),))
    assert len(elicited_suite([SYSTEM], suite, 1).prompts) == 2
    with pytest.raises(DataError, match="probes: 1 distinct questions, but 2 probes"):
        elicited_suite([SYSTEM], suite, 2)


def test_an_ending_is_put_behind_the_last_question() -> None:
    ending = Condition("suffix", None, "", (0,), suffix="over and out")
    all_three = Condition("all", "You are ZED.", "ZED,", (0,), suffix="over and out")
    suite = elicited_suite([ending, all_three], probes((U, A, Message("user", "And then?"), A), "Once"), 2)
    chats = [p.messages for p in suite.prompts]
    assert chats[2] == (U, A, Message("user", "And then? over and out"))
    zed = Message("system", "You are ZED.")
    assert chats[4] == (zed, U, A, Message("user", "ZED, And then? over and out"))
    assert [p.text for p in suite.prompts][1::2] == [
        "Once",
        "Once over and out",
        "You are ZED.\n\nZED, Once over and out",
    ]
