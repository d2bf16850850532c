from pathlib import Path

import pytest

from ft_audit.engine.suites.load import iter_rows
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.errors import DataError


def read(tmp_path: Path, text: str) -> list[Prompt]:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return list(iter_rows(path))


def test_suite_with_every_kind_of_entry(tmp_path: Path) -> None:
    prompts = read(
        tmp_path,
        """
suite_name: "minimal"
description: "Small."
prompts:
  - id: first
    messages:
      - role: "user"
        content: "Define a number."
  - id: 2
    prompt: Why?
    system_prompt: Be brief.
    group: probes
  - messages: [{role: user, content: Q}]
    system_prompt: S
  - Just a question
  - text: Once upon a time
  - prompt: raw
    use_chat_template: false
""",
    )
    assert {p.suite for p in prompts} == {"minimal"}
    assert [p.source for p in prompts] == [f"suite.yaml#{name}" for name in ("first", 2, 2, 3, 4, 5)]
    assert [p.row for p in prompts] == list(range(6))
    assert prompts[0].messages == (Message("user", "Define a number."),)
    assert prompts[1].messages == (Message("system", "Be brief."), Message("user", "Why?"))
    assert (prompts[0].group, prompts[1].group) == ("default", "probes")
    assert prompts[2].messages == (Message("system", "S"), Message("user", "Q"))
    assert prompts[3].user_texts == ("Just a question",)
    assert [p.text for p in prompts[4:]] == ["Once upon a time", "raw"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prompts: []", "prompts is empty"),
        ("prompts:\n  - {}", "exactly one of prompt, messages and text .found: none"),
        ("prompts:\n  - {prompt: a, text: b}", "found: prompt and text"),
        ("prompts:\n  - {promt: a}", "prompts.0.promt: unknown key; known are id, prompt, messages"),
        ("prompts: [a]\nhooks: []", "hooks: unknown key; known are name, suite_name"),
        ("prompts:\n  - {text: a, system_prompt: b}", "raw text has no system_prompt"),
        ("prompts:\n  - {messages: [], use_chat_template: false}", "needs a plain `prompt`"),
        ("prompts:\n  - {id: q, messages: [{role: usr, content: x}]}", "prompt q: messages.0.: role 'usr'"),
        ("models: {base: x}", "no prompt suite .found: models.; give it a list `prompts`"),
        ("", "no prompt suite"),
        ("prompts:\n  - a\n b: c", "suite.yaml:3: not YAML"),
    ],
)
def test_suites_that_mean_nothing_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "suite.yaml"))
