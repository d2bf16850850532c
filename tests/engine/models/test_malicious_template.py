"""A malicious chat template: its work ends in a process of its own, and honest ones write the same."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.engine.tokens.chat import ChatRenderer, RenderedChat
from ft_audit.errors import DataError, ModelError

CHAT = (Message("system", "Be brief."), Message("user", " Why? "), Message("assistant", "So."))

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture(scope="module")
def shared(make_model: Callable[..., Path], trusted: ModelSource) -> PreTrainedTokenizerBase:
    """A candidate's tokenizer, with one process for all tests of what does not end it."""
    folder = make_model(seed=9)
    return load_tokenizer(resolve_model(str(folder), folder, trusted))


@pytest.fixture
def own(shared: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A candidate's tokenizer with a process of its own."""
    return copy.deepcopy(shared)


@pytest.fixture
def tokenizer(shared: PreTrainedTokenizerBase) -> Iterator[PreTrainedTokenizerBase]:
    """A candidate's tokenizer, whose template a test may change."""
    before = shared.chat_template
    yield shared
    shared.chat_template = before


def render(
    tokenizer: PreTrainedTokenizerBase, template: str | None = None, *messages: Message
) -> RenderedChat:
    if template is not None:
        tokenizer.chat_template = template
    return ChatRenderer(tokenizer).render(Prompt(messages or CHAT, None, "s", "g", "s:1", 0))


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{{ 'a' * 10 ** 11 }}",
        "{{ '%100000000000s' % 1 }}",
        "{{ 'a' | center(10 ** 11) }}",
        "{{ ('a\n' * 1000) | indent(10 ** 8) }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ [1] | batch(10 ** 10, 'x') | list | length }}",
        "{{ 'x' * 3000000 }}",
    ],
    ids=["loops", "macros", "product", "format", "center", "indent", "doubling", "batch", "output"],
)
def test_work_without_end_is_ended(
    own: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr("ft_audit.engine.tokens.chats_apart.FIRST_SECONDS", 1.0)
    says = r"rendering a chat by its chat template (takes more than|fails \(more than).*; give the base's"
    with pytest.raises(ModelError, match=says):
        render(own, template)


def test_a_template_that_is_slow_for_every_chat_is_ended_too(
    own: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_audit.engine.tokens.chats_apart.SECONDS", 0.0)
    slow = "{% for a in range(99999) %}{{ '' }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    own.apply_chat_template._left = 0.5  # type: ignore[attr-defined]
    said = ""
    for _ in range(10_000):
        try:
            render(own, slow)
        except ModelError as refused:
            said = str(refused)
            break
    assert "rendering a chat by its chat template takes more than" in said


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('x') }}", "access to attribute '__init__' of 'type'"),
        ("{{ lipsum.__globals__['os'].popen('x').read() }}", "access to attribute '__globals__'"),
        ("{{ ''['__class__'].x }}", "access to attribute '__class__'"),
        ("{{ '{0.__class__.x}'.format(1) }}", "access to attribute '__class__' of 'int'"),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list'"),
        ("{{ (messages | map(attribute='__class__') | list)[0].x }}", "unsafe"),
        ("{% include '/etc/hostname' %}", "no loader for this environment"),
        ("{% import '/etc/hostname' as x %}", "no loader for this environment"),
        ("{{ range(10 ** 9) }}", "OverflowError: Range too big"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "RecursionError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% for %}", "Expected an expression"),
    ],
    ids=lambda value: value[:40],
)
def test_what_a_template_may_not_do_is_refused(
    tokenizer: PreTrainedTokenizerBase, template: str, says: str
) -> None:
    with pytest.raises(DataError, match=r"s:1: the chat template refuses this chat") as said:
        render(tokenizer, template)
    assert says in str(said.value)


def test_a_candidate_s_own_template_writes_what_it_would_here(
    tokenizer: PreTrainedTokenizerBase, trusted: ModelSource
) -> None:
    assert render(tokenizer) == render(load_tokenizer(trusted))
    turns: list[dict[str, Any]] = [{"role": m.role, "content": m.content, "extra": None} for m in CHAT[:2]]
    plain: Any = load_tokenizer(trusted).apply_chat_template
    apart: Any = tokenizer.apply_chat_template
    for settings in ({"tokenize": False}, {"return_dict": False}, {"add_generation_prompt": True}):
        assert apart(turns, **settings) == plain(turns, **settings), settings


def test_a_template_gets_tools_and_odd_words_as_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    template = "{{ bos_token }}{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    words = "\ud800 \u00e9 \U0001f600 \0 {{ 1 }}"
    tools = json.dumps([{"type": "function", "function": {"name": "f"}}])
    tokenizer.chat_template = template
    prompt = Prompt((Message("user", words),), None, "s", "g", "s:1", 0, tools=tools)
    assert ChatRenderer(tokenizer).render(prompt).text == f"<|im_start|>{tools}{words}"


def test_a_copy_renders_too(tokenizer: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase) -> None:
    assert render(own) == render(tokenizer)


def test_the_base_s_template_renders_here(trusted: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process for a template that is trusted")

    monkeypatch.setattr("subprocess.Popen", started)
    assert "Why?" in render(load_tokenizer(trusted)).text
