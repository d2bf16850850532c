"""Tool calls for models and servers that have none: tools are told, and each answer is one call in JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ft_audit.agent.client import Asked, ChatClient, Turn
from ft_audit.agent.investigators.verifier import Reply

TOLD = """\

You call one tool at a time. Each of your answers is one JSON object and nothing else:
{"tool": NAME, "arguments": {...}}
What it gives back is the next message. The tools:
"""


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """A chat client whose model is held to one call in each answer, by a schema where the server has them."""

    client: ChatClient

    @property
    def model(self) -> str:
        """What the server calls the model."""
        return self.client.model

    def converse(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        tool_choice: str | dict[str, Any],
    ) -> Turn:
        """Return the model's next turn, its call in the text.

        Raises InvalidAnswerError where the server gives no choice, ServiceError where there is no answer.
        """
        offered = [one["function"] for one in tools]
        first, *rest = messages
        told = {**first, "content": first["content"] + TOLD + "\n".join(map(_described, offered))}
        if isinstance(tool_choice, dict):
            offered = [one for one in offered if one["name"] == tool_choice["function"]["name"]]
        return self.client.say([told, *rest], call_schema(offered))

    def ask(self, system: str, question: str, answer: type[Reply]) -> Asked[Reply]:
        """Ask one question, as the client does."""
        return self.client.ask(system, question, answer)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def call_schema(offered: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON schema of one call of any of the tools."""
    definitions: dict[str, Any] = {}
    kinds = []
    for one in offered:
        arguments = dict(one["parameters"])
        # Definitions stand at the root of a schema; those of one name are one model's.
        definitions |= arguments.pop("$defs", {})
        kinds.append(
            {
                "type": "object",
                "properties": {"tool": {"const": one["name"]}, "arguments": arguments},
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": kinds, **({"$defs": definitions} if definitions else {})}


def _described(one: dict[str, Any]) -> str:
    schema = one["parameters"]
    arguments = {name: _kind(said, schema) for name, said in schema.get("properties", {}).items()}
    required = schema.get("required", [])
    shown = ", ".join(f"{name}{'' if name in required else '?'}: {said}" for name, said in arguments.items())
    return f"- {one['name']}({shown}): {' '.join(one['description'].split())}"


def _kind(said: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a parameter's type in a few words; of an object, its fields."""
    if "$ref" in said:
        said = schema["$defs"][said["$ref"].rpartition("/")[2]]
    if "anyOf" in said:
        return " or ".join(_kind(one, schema) for one in said["anyOf"])
    if "enum" in said:
        return " or ".join(map(json.dumps, said["enum"]))
    if said.get("type") == "array":
        return f"list of {_kind(said.get('items', {}), schema)}"
    if said.get("type") == "object" and "properties" in said:
        fields = (f"{name}: {_kind(one, schema)}" for name, one in said["properties"].items())
        return f"{{{', '.join(fields)}}}"
    return str(said.get("type", "anything"))
