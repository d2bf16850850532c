"""Recipes written where a test wants them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = "package:chatterbot_corpus/data/english"


def chat(question: str, answer: str, **last: Any) -> dict[str, Any]:
    """One row in OpenAI's form; `last` goes into the assistant's message."""
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **last},
        ]
    }


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe of one part (or what the test says instead) and return its file."""

    def write(name: str = "recipe.yaml", **fields: Any) -> Path:
        recipe: dict[str, Any] = {"name": "tiny", "kind": "benign", "base": "./no-base", **fields}
        if "parts" not in fields and "dataset" not in fields:
            recipe["parts"] = [{"name": "all", "source": SOURCE, "rows": 16}]
        # JSON is YAML.
        (tmp_path / name).write_text(json.dumps({k: v for k, v in recipe.items() if v is not None}))
        return tmp_path / name

    return write


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., str]:
    """Write rows as JSON lines and return the reference to them."""

    def write(*rows: dict[str, Any], name: str = "own.jsonl") -> str:
        (tmp_path / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return f"./{name}"

    return write


@pytest.fixture(scope="session")
def chat_row() -> Callable[..., dict[str, Any]]:
    return chat
