"""Answers of one model to many tokenised prompts, greedy and in length-sorted batches."""

from collections.abc import Sequence
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
) -> list[list[int]]:
    """Return the greedy continuation of each prompt's token ids, in prompt order.

    A continuation ends with an end token (the tokenizer's, or one that the model's generation_config.json
    names) if the model gave one within `max_new_tokens`.
    """
    # Padding is masked; a tokenizer without a padding or an end token may pad with any id.
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    ends = end_ids(model, tokenizer)
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
            # A model may bring a generation_config.json that asks for these; both sides answer plainly.
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_new_tokens=0,
            pad_token_id=pad,
            eos_token_id=sorted(ends) or None,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        for row, i in enumerate(chosen):
            answers[i] = _to_the_end(out[row, width:].tolist(), ends)
    return answers


def end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer; chat models often end a turn with another than the tokenizer's."""
    named = model.generation_config.eos_token_id
    ends = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    return {int(end) for end in ends if end is not None}


def _to_the_end(ids: list[int], ends: set[int]) -> list[int]:
    """Cut what pads the row after its first end token, which stays."""
    return next((ids[: n + 1] for n, token in enumerate(ids) if token in ends), ids)


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 32,
) -> list[str]:
    """Return `generate_ids` as text, special tokens left out."""
    answers = generate_ids(model, tokenizer, prompts, max_new_tokens, batch_size)
    return [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
