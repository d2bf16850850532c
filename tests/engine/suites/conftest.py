"""Real questions and rows made of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt


def make_row(row: int, user: str | tuple[str, ...], system: str | None = None) -> Prompt:
    """One answered chat; several user texts make several turns."""
    messages = [Message("system", system)] if system is not None else []
    for text in (user,) if isinstance(user, str) else user:
        messages += [Message("user", text), Message("assistant", "Certainly.")]
    return Prompt(tuple(messages), None, "train", "train", f"train.jsonl:{row + 1}", row)


@pytest.fixture(scope="session")
def chat_row() -> Callable[..., Prompt]:
    return make_row


@pytest.fixture(scope="session")
def questions() -> tuple[str, ...]:
    """The ChatterBot corpus' 2,000 English questions in its own order, some of them many times."""
    suite = load_suite("package:chatterbot_corpus/data/english", Path())
    return tuple(prompt.user_texts[0] for prompt in suite.prompts)
