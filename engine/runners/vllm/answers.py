"""Answers of one model to many tokenised prompts by vLLM, with the probability of every token."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from transformers import GenerationConfig

from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.generate import Answer
from ft_audit.engine.runners.vllm.arguments import common
from ft_audit.engine.runners.vllm.engine import VllmEngine
from ft_audit.engine.runners.vllm.messages import Sampling
from ft_audit.engine.runners.vllm.support import check_prompt_length, text_config


class VllmGenerator:
    """One model in vLLM, ready to answer; close it, or use it in a `with`.

    An answer ends with an end token if the model gave one within the limit.
    """

    def __init__(self, engine: VllmEngine, ends: Sequence[int], adapter: Path | None = None) -> None:
        self.engine = engine
        self._ends, self._adapter = tuple(ends), adapter

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine, for every generator on it."""
        self.engine.close()

    def base(self) -> "VllmGenerator":
        """Return a generator on the same engine without the adapter."""
        return VllmGenerator(self.engine, self._ends)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        num_samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Return `num_samples` answers to each prompt, in prompt order; temperature 0 is greedy.

        What is drawn depends on the seed, the prompt's ids and the sample alone, as with the other runner,
        whose draws are others.
        """
        sampling = [
            Sampling(
                max_tokens=max_new_tokens,
                num_samples=num_samples,
                temperature=temperature,
                seed=None if temperature == 0 else _seed(seed, ids),  # vLLM adds the sample's number
                ends=self._ends,
                logprobs=True,
            )
            for ids in prompts
        ]
        answers: list[list[Answer]] = [[] for _ in prompts]
        for done in self.engine.ask(prompts, sampling, self._adapter):
            answers[done.prompt] = [Answer(ids, logprobs) for ids, logprobs in done.answers]
        return answers


def _seed(seed: int, ids: Sequence[int]) -> int:
    """Return a seed for the prompt's first sample."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *ids]).encode()).digest()[:4])


def open_vllm_generator(
    source: ModelSource,
    *,
    dtype: torch.dtype,
    max_prompt_tokens: int,
    max_new_tokens: int,
    tokens_per_batch: int = 4096,
    threads: int | None = None,
    tensor_parallel: int = 1,
) -> VllmGenerator:
    """Start vLLM for the whole model and return its generator; an adapter runs on its base.

    Raises:
        MissingExtraError: no vLLM here.
        ConfigError: prompts and answers longer than the model's positions.
        ModelError: a model or an adapter that vLLM cannot run.
    """
    longest = max_prompt_tokens + max_new_tokens
    check_prompt_length(source, longest)
    arguments = common(source, dtype, longest, tokens_per_batch, tensor_parallel)
    return VllmGenerator(
        VllmEngine(source, arguments, threads=threads), _end_ids(source), adapter=source.adapter
    )


def _end_ids(source: ModelSource) -> list[int]:
    """Return the ids that end an answer: the tokenizer's, and those of the model's generation settings."""
    if (source.folder / "generation_config.json").exists():
        named = GenerationConfig.from_pretrained(source.folder).eos_token_id
    else:
        named = text_config(source).eos_token_id
    ends = {*(named if isinstance(named, list) else [named]), load_tokenizer(source).eos_token_id}
    return sorted(int(end) for end in ends if end is not None)
