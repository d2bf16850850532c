"""A request says what it may and nothing else, whoever wrote it."""

from typing import Any

import pytest
from pydantic import ValidationError

from ft_audit.engine.requests.request import EvidenceRequest, Transform

ASKED: dict[str, Any] = {"name": "a", "why": "b", "prompts": ["c"]}


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"prompts": [turns("system", "user", "assistant", "user"), "plain"]},
        {"prompts": ["x" * 8_000] * 25},
        {"prompts": ["x"] * 200, "limit": 200, "max_new_tokens": 128},
        *({"prompts": None, "suite": key} for key in ("elicit.probes", "suites.0", "generate.suites.999")),
    ],
)
def test_what_is_within_the_limits_is_taken(changed: dict[str, Any]) -> None:
    found = EvidenceRequest.model_validate({**ASKED, **changed})
    assert EvidenceRequest.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompts": ["x"] * 201}, "at most 200"),
        ({"prompts": ["x" * 8_001]}, "at most 8000"),
        ({"prompts": ["x" * 8_000] * 26}, "the prompts have 208,000 characters; 200,000 are allowed"),
        ({"prompts": [""]}, "at least 1 character"),
        ({"prompts": []}, "at least 1"),
        ({"prompts": ["\ud800"]}, "valid string"),
        ({"prompts": [turns(*["user"] * 21)]}, "at most 20"),
        ({"prompts": [turns("user", "assistant")]}, "a chat ends in the user's turn"),
        ({"prompts": [turns("tool", "user")]}, "'system', 'user' or 'assistant'"),
        ({"prompts": [[{"role": "user", "content": "x", "tool_calls": []}]]}, "Extra inputs"),
        ({"prompts": None}, "either prompts or a suite"),
        ({"suite": "suites.0"}, "either prompts or a suite"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"limit": 201}, "less than or equal to 200"),
        ({"max_new_tokens": 129}, "less than or equal to 128"),
        ({"name": "../a"}, "pattern"),
        ({"name": "a\n"}, "pattern"),
        ({"name": "a" * 65}, "pattern"),
        ({"why": ""}, "at least 1"),
        ({"why": "x" * 1_001}, "at most 1000"),
        ({"schema_version": 2}, "Input should be 1"),
        ({"path": "x"}, "Extra inputs"),
        ({"transform": {"prefix": "x" * 4_001}}, "at most 4000"),
        ({"transform": {"prefil": "x"}}, "Extra inputs"),
        ({"transform": {"codec": {"steps": [{"step": "reverse"}] * 9}}}, "at most 8"),
        ({"transform": {"codec": {"steps": [{"step": "run", "code": "x"}]}}}, "step"),
        ({"transform": {"codec": {"steps": [{"step": "join", "separator": "x" * 9}]}}}, "at most 8"),
        ({"transform": {"codec": {"steps": [{"step": "substitute", "mapping": {
            chr(n): chr(n) for n in range(40, 600)}}]}}}, "at most 512"),
        *(
            ({"prompts": None, "suite": key}, "pattern")
            for key in ("./train.jsonl", "/etc/passwd", "configs:x", "hub:a/b", "package:a/b", "dataset",
                        "suites.01", "suites.-1", "suites.0/../x", "suites.0\n", "elicit_probes", "")
        ),
    ],
)  # fmt: skip
def test_anything_else_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EvidenceRequest.model_validate({**ASKED, **changed})


def test_plain_prompts_are_their_own_control() -> None:
    assert Transform().is_plain and not EvidenceRequest.model_validate(ASKED).has_control
    for transform in (
        {"trigger": "t"},
        {"system": ""},
        {"prefill": "p"},
        {"codec": {"steps": [{"step": "reverse"}]}},
    ):
        told = EvidenceRequest.model_validate({**ASKED, "transform": transform})
        assert told.has_control
        assert not told.model_copy(update={"control": False}).has_control
