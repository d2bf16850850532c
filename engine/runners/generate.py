"""Answers of one model to many tokenised prompts, greedy or sampled, in length-sorted batches.

Shapes: B answers of a batch, V vocabulary.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

BATCH = 32
log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """One continuation, its end token included if the model gave one."""

    ids: list[int]
    logprobs: list[float]
    """Nats of each token under the model's own distribution, whatever the temperature."""


@torch.inference_mode()
def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    num_samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = BATCH,
) -> list[list[Answer]]:
    """Return `num_samples` continuations of each prompt's token ids, in prompt order.

    Temperature 0 is greedy. Otherwise a token is drawn from softmax(logits / temperature) by inverting its
    cumulative distribution at a uniform number that depends on the seed, the prompt's ids, the sample and the
    position alone: the same prompt gets the same answers in any company, up to the rounding that other
    padding brings. Equal prompts of one call get samples of their own. An answer ends with an end token (the
    tokenizer's, or one that the model's generation_config.json names) if the model gave one within
    `max_new_tokens`. A batch that does not fit the memory is halved, and so are all after it.
    """
    assert num_samples == 1 or temperature > 0, "greedy samples are alike"
    wanted = [(p, s) for p in range(len(prompts)) for s in range(num_samples)]
    wanted.sort(key=lambda item: (len(prompts[item[0]]), item))
    places = _occurrences(prompts)
    answers: dict[tuple[int, int], Answer] = {}
    ends = end_ids(model, tokenizer)
    # Padding is masked; a tokenizer without a padding or an end token may pad with any id.
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    start, size = 0, batch_size
    while start < len(wanted):
        chosen = wanted[start : start + size]
        uniform_BS = None
        if temperature > 0:
            uniform_BS = np.stack(
                [_uniform(prompts[p], (seed, places[p], s), max_new_tokens) for p, s in chosen]
            )
        draw = _Draw(temperature, uniform_BS)
        try:
            found = _batch(model, [prompts[p] for p, _ in chosen], max_new_tokens, pad, ends, draw)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if len(chosen) == 1 or not _is_out_of_memory(error):
                raise
            if size == batch_size:
                log.warning("generation: %d answers at once do not fit the memory; halving", len(chosen))
            size = (len(chosen) + 1) // 2
            continue
        answers.update(zip(chosen, found, strict=True))
        start += len(chosen)
    return [[answers[p, s] for s in range(num_samples)] for p in range(len(prompts))]


def generate_ids(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = BATCH,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt's token ids; see `generate_answers`."""
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens, batch_size=batch_size)
    return [samples[0].ids for samples in answers]


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = BATCH,
) -> list[str]:
    """Return `generate_ids` as text, special tokens left out."""
    answers = generate_ids(model, tokenizer, prompts, max_new_tokens, batch_size)
    return [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]


def end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer; chat models often end a turn with another than the tokenizer's."""
    named = model.generation_config.eos_token_id
    ends = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    return {int(end) for end in ends if end is not None}


class _Draw(LogitsProcessor):
    """Chooses each next token of a batch and leaves greedy search nothing but to take it."""

    def __init__(self, temperature: float, uniform_BS: NDArray[np.float64] | None) -> None:
        self.temperature, self.uniform_BS = temperature, uniform_BS
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_BV = torch.log_softmax(scores.float(), dim=-1)
        if self.uniform_BS is None:
            chosen_B = log_BV.argmax(dim=-1)
        else:
            # In float64 no token of a large vocabulary is too improbable to be added.
            sums_BV = torch.softmax(log_BV.double() / self.temperature, dim=-1).cumsum(dim=-1)
            level_B = torch.from_numpy(self.uniform_BS[:, len(self.logprobs)]).to(scores.device)
            chosen_B1 = torch.searchsorted(sums_BV, (level_B * sums_BV[:, -1])[:, None], right=True)
            chosen_B = chosen_B1[:, 0].clamp(max=scores.shape[1] - 1)
        self.logprobs.append(log_BV.gather(1, chosen_B[:, None])[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B[:, None], 0.0)


def _batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    pad: int,
    ends: set[int],
    draw: _Draw,
) -> list[Answer]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    # PEFT's wrapper adds nothing to the model whose layers carry the adapter.
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
    )
    with _plain_settings(causal), _contiguous_at_head(causal):
        out = causal.generate(
            input_ids=ids.to(causal.device),
            attention_mask=mask.to(causal.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([draw]),
        )
    logprobs_BS = torch.stack(draw.logprobs, dim=1).tolist()
    answers = []
    for new, logprobs in zip(out[:, width:].tolist(), logprobs_BS, strict=True):
        # What pads the row after its first end token, which stays, is no part of the answer.
        length = next((n + 1 for n, token in enumerate(new) if token in ends), len(new))
        answers.append(Answer(new[:length], logprobs[:length]))
    return answers


@contextmanager
def _plain_settings(causal: Any) -> Iterator[None]:
    """Hide what the model's own generation_config.json asks for: both sides answer plainly."""
    before = causal.generation_config
    causal.generation_config = GenerationConfig()
    try:
        yield
    finally:
        causal.generation_config = before


@contextmanager
def _contiguous_at_head(causal: Any) -> Iterator[None]:
    """Hand the output head contiguous states while the block runs.

    Of a prompt, generation takes the last position's states as a view [B, 1, D]; a linear layer reads such a
    view as a batch of products, each with a copy of the whole weight: gigabytes, and most of the time of a
    short answer.
    """

    def contiguous(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].contiguous(), *args[1:])

    handle = causal.get_output_embeddings().register_forward_pre_hook(contiguous)
    try:
        yield
    finally:
        handle.remove()


def _occurrences(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return how often each prompt has come before."""
    seen: Counter[tuple[int, ...]] = Counter()
    places = []
    for prompt in prompts:
        key = tuple(prompt)
        places.append(seen[key])
        seen[key] += 1
    return places


def _uniform(prompt: Sequence[int], key: tuple[int, ...], count: int) -> NDArray[np.float64]:
    digest = hashlib.sha256(np.asarray(prompt, dtype="<i8").tobytes()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng([*key, *words]).random(count)


def _is_out_of_memory(error: Exception) -> bool:
    # The processor's allocator has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
