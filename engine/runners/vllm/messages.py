"""What our process and vLLM's say to each other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Start(NamedTuple):
    """The first message: what to start, and where states go on their way to us."""

    arguments: Mapping[str, Any]
    """Of `vllm.LLM`, without what depends on the device."""
    ids: tuple[int, ...]
    """Extraction ids; none for answers."""
    scratch: str


class Ready(NamedTuple):
    """The engine runs, as vLLM itself describes it."""

    config: Mapping[str, Any]


class Sampling(NamedTuple):
    """How one prompt is continued."""

    max_tokens: int = 1
    num_samples: int = 1
    temperature: float = 0.0
    seed: int | None = None
    ends: tuple[int, ...] = ()
    logprobs: bool = False


class Ask(NamedTuple):
    """Prompts that share steps; all are queued before the first of them runs."""

    prompts: Sequence[Sequence[int]]
    sampling: Sequence[Sampling]
    adapter: str | None


class Done(NamedTuple):
    """One prompt is finished: its states' file, and each continuation's (ids, log-probabilities)."""

    prompt: int
    """Its place among the prompts."""
    path: str | None
    answers: Sequence[tuple[list[int], list[float]]]


class Failed(NamedTuple):
    """Nothing more will come; `what` is for a user."""

    what: str
