"""Answers of one model to many tokenised prompts, greedy and in length-sorted batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase


@torch.inference_mode()
def generate_ids(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 32,
    on_done: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt's token ids, in prompt order.

    A continuation ends with the end-of-sequence token if the model gave one within `max_new_tokens`.
    `on_done` is called with the number of prompts finished since the last call.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        for row, i in enumerate(chosen):
            answers[i] = _to_the_end(out[row, width:].tolist(), tokenizer.eos_token_id)
        if on_done:
            on_done(len(chosen))
    return answers


def _to_the_end(ids: list[int], eos: int | None) -> list[int]:
    """Cut what pads the row after its end-of-sequence token, which stays."""
    return ids[: ids.index(eos) + 1] if eos is not None and eos in ids else ids


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 32,
    on_done: Callable[[int], object] | None = None,
) -> list[str]:
    """Return `generate_ids` as text, special tokens left out."""
    answers = generate_ids(model, tokenizer, prompts, max_new_tokens, batch_size, on_done)
    return [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
