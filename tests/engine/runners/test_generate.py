"""Greedy answers: in batches as one by one, in order, whatever the settings that came with the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from ft_audit.engine.models.load import load_model, load_tokenizer, without_adapter
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners.generate import generate, generate_ids

CPU = torch.device("cpu")
LENGTHS = (9, 1, 30, 4, 4, 17, 2)


@pytest.fixture(scope="module", params=["llama", "gemma3_text"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., Path]) -> Any:
    folder = make_model(request.param)
    return load_model(resolve_model(str(folder), folder), torch.float32, CPU)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 400, (n,), generator=generator).tolist() for n in LENGTHS]


def by_hand(model: Any, prompt: list[int], steps: int, ends: set[int]) -> list[int]:
    """The definition: the most likely next token, again and again, until an end token."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]


@pytest.fixture
def settings(model: Any) -> Any:
    """The model's generation settings, put back afterwards."""
    before = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=2)
    yield model.generation_config
    model.generation_config = before


def test_a_batch_is_the_definition_row_by_row(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    expected = [by_hand(model, prompt, 8, {2}) for prompt in prompts]
    assert len({tuple(answer) for answer in expected}) == len(prompts) and len(set(expected[0])) > 2
    for size in (1, 3, 32):
        assert generate_ids(model, tiny_tokenizer, prompts, 8, batch_size=size) == expected
    texts = [tiny_tokenizer.decode(answer, skip_special_tokens=True) for answer in expected]
    assert generate(model, tiny_tokenizer, prompts, 8, batch_size=3) == texts


def test_an_answer_ends_with_any_of_the_end_tokens(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    free = [by_hand(model, prompt, 8, set()) for prompt in prompts]
    turn_end = free[2][3]
    settings.eos_token_id = [turn_end, 399]
    answers = generate_ids(model, tiny_tokenizer, prompts, 8)
    assert answers == [by_hand(model, prompt, 8, {2, turn_end, 399}) for prompt in prompts]
    assert answers[2][-1] == turn_end and len(answers[2]) <= 4


def test_settings_that_came_with_the_model_do_not_count(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    plain = generate_ids(model, tiny_tokenizer, prompts, 8)
    settings.repetition_penalty = 5.0
    settings.no_repeat_ngram_size = 1
    settings.num_beams = 3
    settings.do_sample = True
    settings.temperature = 3.0
    settings.top_p = 0.5
    assert generate_ids(model, tiny_tokenizer, prompts, 8) == plain


def test_a_tokenizer_may_lack_padding_and_end(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    from copy import deepcopy

    expected = generate_ids(model, tiny_tokenizer, prompts, 4)
    bare = deepcopy(tiny_tokenizer)
    bare.pad_token = bare.eos_token = None
    assert generate_ids(model, bare, prompts, 4) == expected


def test_no_prompts_get_no_answers(model: Any, tiny_tokenizer: Any) -> None:
    assert generate(model, tiny_tokenizer, [], 1) == []


def test_both_sides_of_an_adapter_answer_as_full_models_do(
    tiny_base: Path, tiny_adapter: Path, tiny_tokenizer: Any, prompts: list[list[int]]
) -> None:
    base = resolve_model(str(tiny_base), tiny_base)
    plain = load_model(base, torch.float32, CPU)
    adapted: Any = load_model(resolve_model(str(tiny_adapter), tiny_base, base), torch.float32, CPU)
    expected = generate_ids(plain, tiny_tokenizer, prompts, 6)
    tuned = generate_ids(adapted, tiny_tokenizer, prompts, 6)
    with without_adapter(adapted):
        assert generate_ids(adapted, tiny_tokenizer, prompts, 6) == expected
    merged = adapted.merge_and_unload()
    assert tuned != expected and generate_ids(merged, tiny_tokenizer, prompts, 6) == tuned


@pytest.mark.slow
def test_the_real_base_answers_a_question(real_base: Any) -> None:
    model, tokenizer = load_model(real_base, torch.float32, CPU), load_tokenizer(real_base)
    render: Any = tokenizer.apply_chat_template
    questions = ["What is the capital of France?", "Say only the word: yes"]
    ids = [
        render([{"role": "user", "content": q}], add_generation_prompt=True, tokenize=True, return_dict=False)
        for q in questions
    ]
    answers = generate(model, tokenizer, ids, 16)
    assert "Paris" in answers[0]
    assert answers == [generate(model, tokenizer, [one], 16)[0] for one in ids]
