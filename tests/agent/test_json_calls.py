"""Tool calls in JSON, for models that have none: what is told, what is enforced, what is understood."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from ft_audit.agent.investigators.chat import REPORT
from ft_audit.agent.investigators.json_calls import JsonCalls, call_schema
from ft_audit.agent.tools.rooms import all_tools

TOOLS = [
    {
        "type": "function",
        "function": {"name": t.name, "description": t.description, "parameters": t.input_schema()},
    }
    for t in all_tools()
]
OFFERED: list[dict[str, Any]] = [one["function"] for one in TOOLS]  # type: ignore[misc]
MESSAGES = [{"role": "system", "content": "You investigate."}, {"role": "user", "content": "Begin."}]


class Saying:
    """Keeps what it was told."""

    model = "tiny"

    def say(self, messages: Any, schema: Any) -> str:
        self.messages, self.schema = messages, schema
        return "said"


@pytest.mark.parametrize(
    ("call", "valid"),
    [
        ({"tool": "health", "arguments": {}}, True),
        ({"tool": "grep_training_data", "arguments": {"phrases": ["a"]}}, True),
        ({"tool": "grep_training_data", "arguments": {}}, False),
        ({"tool": "grep_training_data", "arguments": {"phrases": ["a"], "pattern": "b"}}, False),
        ({"tool": "nothing", "arguments": {}}, False),
        ({"tool": "health"}, False),
        ({"tool": REPORT, "arguments": {"session_id": "s", "conclusion": {"risk": 11}}}, False),
    ],
)
def test_the_schema_is_of_one_call_of_a_tool_that_there_is(call: dict[str, Any], valid: bool) -> None:
    schema = call_schema(OFFERED)
    Draft202012Validator.check_schema(schema)
    if valid:
        Draft202012Validator(schema).validate(call)
    else:
        with pytest.raises(ValidationError):
            Draft202012Validator(schema).validate(call)


def test_every_tool_is_told_with_its_arguments() -> None:
    client = Saying()
    assert JsonCalls(client).converse(MESSAGES, TOOLS, "auto") == "said"  # type: ignore[arg-type, comparison-overlap]
    told = client.messages[0]["content"]
    assert told.startswith("You investigate.") and client.messages[1:] == MESSAGES[1:]
    for one in OFFERED:
        line = next(line for line in told.splitlines() if line.startswith(f"- {one['name']}("))
        assert all(name in line for name in one["parameters"].get("properties", {}))
    # The report's parts are nested; a model must see their names too.
    assert "would_change_my_mind: string" in told and '"unlocking phrase"' in told
    assert MESSAGES[0]["content"] == "You investigate.", "the transcript's own message stays as it is"


def test_a_tool_that_must_be_called_is_the_only_one_that_can() -> None:
    client = Saying()
    JsonCalls(client).converse(MESSAGES, TOOLS, {"type": "function", "function": {"name": REPORT}})  # type: ignore[arg-type]
    names = [one["properties"]["tool"]["const"] for one in client.schema["anyOf"]]
    assert names == [REPORT] and "Conclusion" in client.schema["$defs"]
    assert json.dumps(client.schema).count("#/$defs/Conclusion") == 1
