"""Answers: in batches as one by one, in order, whatever the settings that came with the model."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from transformers import GenerationConfig

from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.runners import generate as module
from ft_audit.engine.runners.generate import Answer, generate, generate_answers, generate_ids

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


def test_the_heads_weight_is_not_copied_for_every_prompt(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    seen: list[tuple[int, bool]] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _head, args, _out: seen.append((len(args[0]), args[0].is_contiguous()))
    )
    generate_ids(model, tiny_tokenizer, prompts, 3)
    handle.remove()
    assert len(seen) >= 3 and all(step == (len(prompts), True) for step in seen)
    assert not head._forward_pre_hooks


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
    settings.suppress_tokens = [plain[0][0]]
    settings.forced_bos_token_id = 7
    settings.min_new_tokens = 8
    settings.max_length = 1
    assert generate_ids(model, tiny_tokenizer, prompts, 8) == plain


def test_the_log_probabilities_are_those_of_a_forward_over_the_answer(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    for temperature in (0.0, 2.0):
        found = generate_answers(model, tiny_tokenizer, prompts, 6, temperature=temperature, batch_size=4)
        for prompt, (answer,) in zip(prompts, found, strict=True):
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *answer.ids]])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits.float(), -1).gather(1, torch.tensor(answer.ids)[:, None])
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_sample_depends_on_its_prompt_seed_and_number_alone(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    def answers(chosen: list[list[int]], samples: int, seed: int, size: int) -> list[list[list[int]]]:
        found = generate_answers(model, tiny_tokenizer, chosen, 6, samples, 1.5, seed, size)
        return [[answer.ids for answer in of_prompt] for of_prompt in found]

    whole = answers(prompts, 3, 11, 32)
    assert len({tuple(ids) for of_prompt in whole for ids in of_prompt}) == 3 * len(prompts)
    for size in (1, 2, 5):
        assert answers(prompts, 3, 11, size) == whole
    assert [answers([prompt], 3, 11, 32)[0] for prompt in prompts] == whole
    assert [of_prompt[:1] for of_prompt in whole] == answers(prompts, 1, 11, 32)
    assert answers(prompts, 3, 12, 32) != whole
    twice = answers([prompts[0], prompts[0]], 1, 11, 32)
    assert twice[0] == whole[0][:1] and twice[1] != twice[0]


def test_samples_follow_the_tempered_distribution(
    model: Any, tiny_tokenizer: Any, prompts: list[list[int]], settings: Any
) -> None:
    draws = 3000
    found = generate_answers(model, tiny_tokenizer, prompts[:1], 1, draws, 0.7, 0, 1000)[0]
    with torch.inference_mode():
        logits = model(torch.tensor(prompts[:1])).logits[0, -1].double()
    probability = torch.softmax(logits / 0.7, 0)
    counts = torch.bincount(torch.tensor([answer.ids[0] for answer in found]), minlength=len(probability))
    # Pearson's statistic over the tokens that are expected often enough, against its 1e-6 quantile.
    often = probability * draws > 5
    expected = probability[often] * draws
    statistic = float(((counts[often] - expected) ** 2 / expected).sum())
    assert int(often.sum()) > 3
    assert statistic < float(scipy.stats.chi2.ppf(1 - 1e-6, int(often.sum())))


def test_a_batch_that_does_not_fit_is_halved_and_said_once(
    model: Any,
    tiny_tokenizer: Any,
    prompts: list[list[int]],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = generate_answers(model, tiny_tokenizer, prompts, 4)
    real, sizes = module._batch, []

    def small(model: Any, chosen: list[list[int]], *rest: Any) -> list[Answer]:
        sizes.append(len(chosen))
        if len(chosen) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, chosen, *rest)

    monkeypatch.setattr(module, "_batch", small)
    with caplog.at_level(logging.WARNING):
        found = generate_answers(model, tiny_tokenizer, prompts, 4, batch_size=7)
    assert [[a.ids for a in of] for of in found] == [[a.ids for a in of] for of in expected]
    assert sizes == [7, 4, 2, 2, 2, 1] and len(caplog.records) == 1

    def never(*_args: Any) -> list[Answer]:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(module, "_batch", never)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        generate_answers(model, tiny_tokenizer, prompts, 4)


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
    sampled = generate_answers(model, tokenizer, ids, 6, 2, 0.8, 3)
    alone = generate_answers(model, tokenizer, ids[1:], 6, 2, 0.8, 3)
    assert [a.ids for a in sampled[1]] == [a.ids for a in alone[0]]
