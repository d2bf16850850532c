"""What real small models said in investigations of the demo, replayed: the same calls, refusals and end.

A recording holds the model's own words. SESSION and EVIDENCE-N stand for the ids that it was given, in order:
those of the replay take their place.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent.client import Turn
from ft_audit.agent.investigators.chat import Investigation
from ft_audit.agent.investigators.transcript import Transcript
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.engine.config import AgentConfig
from ft_audit.engine.store import Store

RECORDINGS = sorted((Path(__file__).parent / "recorded").glob("*.json"))


class Replaying:
    """Says what a model said, one turn after the other."""

    model = "recorded"

    def __init__(self, turns: list[dict[str, Any]]) -> None:
        self.turns = iter(turns)

    def converse(self, messages: Any, tools: Any, tool_choice: Any) -> Turn:
        turn = next(self.turns)
        session = re.search(r"Your session is (\w+)", messages[1]["content"])
        assert session is not None
        text = turn["content"].replace("SESSION", session[1])
        given = re.findall(r'^Answer of \w+: \{"evidence_id": "([^"]+)"', _joined(messages), re.MULTILINE)
        for number, one in enumerate(dict.fromkeys(given)):
            text = text.replace(f"EVIDENCE-{number}", one)
        return Turn(text, (), turn["tokens_in"], turn["tokens_out"])


def _joined(messages: Any) -> str:
    return "\n".join(str(message["content"]) for message in messages)


def test_there_are_recordings() -> None:
    assert RECORDINGS


@pytest.mark.parametrize("path", RECORDINGS, ids=[path.stem for path in RECORDINGS])
def test_a_recorded_investigation_goes_as_it_went(path: Path, asked: Any, tmp_path: Path) -> None:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    model = Replaying(recorded["turns"])
    run = Investigation(
        Auditor(asked.config, asked.evidence, asked.calibration, tools_of("full")),
        AgentConfig.model_validate_json(json.dumps(recorded["agent"])),
        model,
        Transcript.open(Store(tmp_path), "a" * 16),
        clock=lambda: 0.0,
    )
    found = run.run()
    texts = [str(m["content"]) for m in run.transcript.messages]
    assert found.status == recorded["status"]
    assert found.usage.requests == len(recorded["turns"]) and next(model.turns, None) is None
    assert found.usage.tokens_in == sum(turn["tokens_in"] for turn in recorded["turns"])
    assert sum("error: " in text for text in texts[2:]) == recorded["refused"]
    assert (found.conclusion.risk if found.conclusion else None) == recorded["risk"]
