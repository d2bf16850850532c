"""The registry of tools: a typed function with a docstring each, by name and by what it looks at."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ft_audit.agent.tools.answer import Answer
from ft_audit.agent.tools.profiles import Kind
from ft_audit.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Answer])


class ToolError(UserError):
    """A call that could not be answered; its message is for the investigator."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that an investigator may call."""

    name: str
    kind: Kind
    function: Callable[..., Answer]
    arguments: type[BaseModel]
    answer: type[Answer]
    writes: bool
    """Whether it changes the session: everything else only reads."""
    refusal: Callable[[], str | None]
    """Says why this machine cannot offer it; None where it can."""

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        return self.arguments.model_json_schema()

    def output_schema(self) -> dict[str, Any]:
        """The JSON schema of what it answers, with what every answer has beside it."""
        schema = self.answer.model_json_schema(mode="serialization")
        cited = {"type": "string", "description": "Cite this in a finding that rests on it."}
        schema["properties"] = {
            **({} if self.writes else {"evidence_id": cited}),
            "untrusted_marker": {"type": "string", "description": "What untrusted text stands between."},
            **schema.get("properties", {}),
        }
        return schema

    def call(self, auditor: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], Answer]:
        """Return the checked arguments, defaults filled in, and the answer.

        Raises:
            ToolError: the arguments are wrong, or name what is not there.
        """
        try:
            checked = self.arguments.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            names = ", ".join(self.arguments.model_fields) or "none"
            raise ToolError(f"{self.name}: {where}: {first['msg']} (arguments: {names})") from None
        values = {name: getattr(checked, name) for name in self.arguments.model_fields}
        return checked.model_dump(mode="json"), self.function(auditor, **values)


_TOOLS: dict[str, Tool] = {}


def tool(
    kind: Kind, *, writes: bool = False, refusal: Callable[[], str | None] = lambda: None
) -> Callable[[Function], Function]:
    """Register a function whose first parameter is the auditor; the others are the investigator's to give."""

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        answer = hints.pop("return")
        parameters = list(inspect.signature(function).parameters.values())[1:]
        fields: dict[str, Any] = {
            p.name: (hints[p.name], ... if p.default is inspect.Parameter.empty else p.default)
            for p in parameters
        }
        arguments = create_model(
            f"{function.__name__}_arguments", __config__=ConfigDict(extra="forbid"), **fields
        )
        assert function.__name__ not in _TOOLS, f"two tools are called {function.__name__}"
        assert inspect.getdoc(function), f"{function.__name__} says nothing of itself"
        _TOOLS[function.__name__] = Tool(
            function.__name__, kind, function, arguments, answer, writes, refusal
        )
        return function

    return register


def registered(name: str) -> Tool | None:
    """Return the tool of a name; None where there is none."""
    return _TOOLS.get(name)
