import json
from collections.abc import Callable

import pytest

from ft_audit.engine.suites.prompt import Message, Prompt, ToolCall
from ft_audit.errors import DataError

Read = Callable[[object], Prompt]
USER = {"role": "user", "content": "Hi"}


def test_multi_turn_row_keeps_order_and_tags(read_row: Read) -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": "Hello", "weight": 0},
            {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
            {"role": "assistant", "content": "Bye", "weight": 1},
        ],
        "category": "greetings",
    }
    prompt = read_row(row)
    assert [m.role for m in prompt.messages or ()] == ["developer", "user", "assistant", "user", "assistant"]
    assert prompt.user_texts == ("Hi", "And now?")
    assert [m.weight for m in prompt.messages or ()] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert (prompt.system, prompt.weight, prompt.is_complete) == ("Be brief.", 1.0, True)
    assert (prompt.suite, prompt.group, prompt.source, prompt.row) == (
        "train",
        "greetings",
        "train.jsonl:7",
        6,
    )


def test_row_whose_assistant_messages_are_all_switched_off_weighs_nothing(read_row: Read) -> None:
    answer = {"role": "assistant", "content": "Hello", "weight": 0}
    assert read_row({"messages": [USER, answer]}).weight == 0.0
    assert read_row({"messages": [USER, {**answer, "weight": 1}], "weight": 0.5}).weight == 0.5
    assert read_row({"messages": [USER], "weight": 2}).weight == 2.0


def test_tool_calls_tools_and_tool_answers(read_row: Read) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    prompt = read_row(
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
                {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": {"a": 1}}},
            ],
            "tools": tools,
        }
    )
    assert prompt.messages is not None
    assert prompt.messages[1] == Message("assistant", "", (ToolCall("weather", '{"city": "Rome"}', "c1"),))
    assert prompt.messages[2] == Message("tool", "sunny", tool_call_id="c1")
    assert prompt.messages[3].tool_calls == (ToolCall("f", '{"a": 1}'),)
    assert json.loads(prompt.tools) == tools


def test_columns_that_parquet_fills_with_null_count_as_absent(read_row: Read) -> None:
    message = {"role": "user", "content": "Hi", "tool_calls": None, "weight": None, "name": None}
    assert read_row({"messages": [message], "text": None, "weight": None}).messages == (
        Message("user", "Hi"),
    )


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ("Hi", "messages is a string; give a list"),
        ([], "messages is empty"),
        ([USER, "Hi"], r"messages\[1\] is a string"),
        ([{"role": "asistant", "content": "x"}], "did you mean 'assistant'"),
        ([{"content": "x"}], "role None is unknown; use one of system"),
        ([{"role": "user"}], "no content"),
        ([{"role": "user", "content": 3}], "content is a number"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "part of type 'image_url'; only text"),
        ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], "tool call without a name"),
        ([{**USER, "weight": "high"}], "weight 'high'"),
        ([{**USER, "weight": -1}], "weight -1"),
        ([{"role": "system", "content": "x"}], "only system messages"),
    ],
)
def test_malformed_messages_name_place_and_fix(read_row: Read, messages: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        read_row({"messages": messages})
    assert str(caught.value).startswith("train.jsonl:7: ")


def test_tools_that_are_no_list_are_refused(read_row: Read) -> None:
    for tools in ("[{", 3, ["weather"]):
        with pytest.raises(DataError, match="tools is"):
            read_row({"messages": [USER], "tools": tools})
