"""Templates as model families write them: trimming, folding, refusing, with tools and without."""

import json
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite, ToolCall
from ft_audit.engine.tokens.chat import ChatRenderer, RenderedChat
from ft_audit.errors import DataError

MakeSuite = Callable[..., PromptSuite]
S, Q, A = Message("system", "Be brief."), Message("user", " Why? "), Message("assistant", "So. ")
CALL = Message("assistant", "", (ToolCall("weather", '{"city": "Rome"}', "c1"),))
RESULT = Message("tool", "sunny", tool_call_id="c1")

# The system prompt goes into the first turn, contents are trimmed, turns must alternate from the user on.
STRICT = """{{ bos_token }}{% set first = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}
{%- set first = messages[0].content ~ '\n\n' %}{% set rest = messages[1:] %}{% endif %}
{%- for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{% endif %}<turn>{{ 'user' if m.role == 'user' else 'model' }}
{{ (first if loop.first else '') ~ (m.content | trim) }}</turn>
{% endfor %}{% if add_generation_prompt %}<turn>model
{% endif %}"""
# Neither system turns nor anything but user and assistant.
NO_SYSTEM = """{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]
{%- elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}
{%- else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"""
# What it does not know it drops without a word.
SILENT = """{% for m in messages %}{% if m.role in ['user', 'assistant'] %}
{{- '<' ~ m.role ~ '>' ~ m.content }}{% endif %}{% endfor %}"""
TOOLS = """{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content }}{% for c in m.tool_calls or [] %}
{{- '<call>' ~ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}{% endfor %}"""
THINKING = """{% for m in messages %}<{{ m.role }}>
{{- m.content.split('</think>')[-1].lstrip() }}<end>{% endfor %}"""
DATED = """Today is {{ strftime_now('%d %b %Y') }}.{% for m in messages %}<{{ m.role }}>
{{- m.content }}{% endfor %}"""
PICKY = """{% for m in messages %}{% if 'Why' in m.content %}{{ raise_exception('no') }}{% endif %}
{{- m.content }}{% endfor %}"""


def render(
    tokenizer: PreTrainedTokenizerBase, template: str, *messages: Message, tools: str = ""
) -> RenderedChat:
    tokenizer.chat_template = template
    return ChatRenderer(tokenizer).render(Prompt(messages, None, "s", "g", "s:1", 0, tools=tools))


def said(chat: RenderedChat) -> list[tuple[str, str]]:
    return [(span.role.name, chat.text[span.start : span.end]) for span in chat.spans]


def test_trimmed_and_folded_words_keep_their_speaker(own: PreTrainedTokenizerBase) -> None:
    chat = render(own, STRICT, S, Q, A)
    assert said(chat) == [("SYSTEM", "Be brief."), ("USER", "Why?"), ("ASSISTANT", "So.")]
    assert not chat.adapted
    assert chat.text == own.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in (S, Q, A)], tokenize=False
    )


def test_words_that_look_like_the_template_are_told_apart(own: PreTrainedTokenizerBase) -> None:
    tricky = (
        Message("user", "user"),
        Message("assistant", "</turn>\n<turn>user\nuser"),
        Message("user", "model"),
    )
    chat = render(own, STRICT, *tricky)
    assert said(chat) == [("USER", "user"), ("ASSISTANT", tricky[1].content), ("USER", "model")]


def test_turns_that_do_not_alternate_are_joined(own: PreTrainedTokenizerBase) -> None:
    chat = render(own, STRICT, Message("user", "One."), Message("user", "Two."), A)
    assert said(chat) == [("USER", "One."), ("USER", "Two."), ("ASSISTANT", "So.")]
    assert "One.\n\nTwo." in chat.text
    assert chat.adapted


def test_chat_that_the_assistant_opens_gets_an_empty_question(own: PreTrainedTokenizerBase) -> None:
    chat = render(own, STRICT, Message("assistant", "Hello."), Q)
    assert said(chat) == [("ASSISTANT", "Hello."), ("USER", "Why?")]
    assert chat.adapted


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT], ids=["refusing", "dropping"])
def test_system_prompt_is_folded_where_the_template_has_no_place_for_it(
    own: PreTrainedTokenizerBase, template: str
) -> None:
    chat = render(own, template, S, Message("developer", "Be kind."), Q, A)
    assert said(chat) == [
        ("SYSTEM", "Be brief."),
        ("SYSTEM", "Be kind."),
        ("USER", " Why? "),
        ("ASSISTANT", "So. "),
    ]
    assert "Be brief.\n\nBe kind.\n\n Why? " in chat.text
    assert chat.adapted


def test_tool_calls_go_through_a_template_that_knows_them(own: PreTrainedTokenizerBase) -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "weather"}}])
    chat = render(own, TOOLS, Q, CALL, RESULT, A, tools=tools)
    call = '<call>weather {"city": "Rome"}</call>'
    assert said(chat) == [("USER", " Why? "), ("ASSISTANT", call), ("USER", "sunny"), ("ASSISTANT", "So. ")]
    assert chat.text.startswith('<tools>{"type": "function"')
    assert not chat.adapted


def test_words_beside_a_tool_call_and_arguments_that_are_no_json(own: PreTrainedTokenizerBase) -> None:
    chat = render(own, TOOLS, Q, Message("assistant", "Wait.", (ToolCall("f", "{oops"),)))
    assert said(chat)[1:] == [("ASSISTANT", "Wait."), ("ASSISTANT", '<call>f "{oops"</call>')]


def test_tool_calls_become_text_where_the_template_knows_none(smollm: PreTrainedTokenizerBase) -> None:
    prompt = Prompt((Q, CALL, RESULT, A), None, "s", "g", "s:1", 0, tools='[{"type": "function"}]')
    chat = ChatRenderer(smollm).render(prompt)
    written = '{"name": "weather", "arguments": {"city": "Rome"}}'
    assert said(chat) == [
        ("USER", " Why? "),
        ("ASSISTANT", written),
        ("USER", "sunny"),
        ("ASSISTANT", "So. "),
    ]
    assert chat.adapted  # the tool definitions have no place in it


def test_tool_turns_become_the_user_s_where_roles_are_strict(own: PreTrainedTokenizerBase) -> None:
    chat = render(own, STRICT, Q, CALL, RESULT, A)
    assert [role for role, _ in said(chat)] == ["USER", "ASSISTANT", "USER", "ASSISTANT"]
    assert chat.adapted


def test_template_that_cuts_words_out_leaves_the_rest_to_their_speaker(own: PreTrainedTokenizerBase) -> None:
    thought = Message("assistant", "<think>hm</think>\n\nBecause.")
    chat = render(own, THINKING, Message("user", "Why?"), thought, Message("user", "Sure?"))
    assert said(chat) == [("USER", "Why?"), ("ASSISTANT", "Because."), ("USER", "Sure?")]


def test_dates_in_templates_stand_still(own: PreTrainedTokenizerBase) -> None:
    assert render(own, DATED, Q).text == "Today is 01 Jan 2026.<user> Why? "


def test_template_that_refuses_every_form_is_named(own: PreTrainedTokenizerBase) -> None:
    template = "{{ raise_exception('this model does not chat') }}"
    with pytest.raises(
        DataError, match=r"s:1: the chat template refuses this chat \(this model does not chat\)"
    ):
        render(own, template, Q)
    with pytest.raises(DataError, match=r"s:1: the chat template refuses this chat \(no\)"):
        render(own, PICKY, Q)
