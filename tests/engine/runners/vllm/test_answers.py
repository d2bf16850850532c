"""Answers by the real vLLM, their probabilities beside Hugging Face's, float32."""

from typing import Any

import pytest
import torch

from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.runners.generate import generate_ids

QUESTIONS = ("What is the capital of France?", "Name a fruit.", "How do I bake bread?")
pytestmark = pytest.mark.vllm


@pytest.fixture(scope="session")
def tokenizer(real_base: Any) -> Any:
    return load_tokenizer(real_base)


@pytest.fixture(scope="session")
def prompts(tokenizer: Any) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in QUESTIONS
    ]


@torch.inference_mode()
def expected_logprobs(model: Any, prompt: list[int], answer: list[int]) -> list[float]:
    logits_LV = model(torch.tensor([[*prompt, *answer]])).logits[0].float()
    logprobs_LV = logits_LV.log_softmax(dim=-1)
    start = len(prompt) - 1
    return [float(logprobs_LV[start + n, token]) for n, token in enumerate(answer)]


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_greedy_answers_and_their_probabilities(
    side: str,
    candidate_generator: Any,
    request: pytest.FixtureRequest,
    tokenizer: Any,
    prompts: list[list[int]],
) -> None:
    model = request.getfixturevalue("reference" if side == "base" else "reference_candidate")
    generator = candidate_generator.base() if side == "base" else candidate_generator
    answers = generator.generate(prompts, 24)
    assert [len(each) for each in answers] == [1, 1, 1]
    ends = {tokenizer.eos_token_id}
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        assert len(answer.ids) == len(answer.logprobs) <= 24
        assert len(answer.ids) == 24 or answer.ids[-1] in ends
        assert answer.logprobs == pytest.approx(expected_logprobs(model, prompt, answer.ids), abs=2e-3)
    # An answer that ends, ends with the token that says so, in both.
    assert [each[0].ids for each in answers] == generate_ids(model, tokenizer, prompts, 24)
    assert any(each[0].ids[-1] in ends for each in answers)


def test_samples_have_seeds_of_their_own(
    candidate_generator: Any, reference: Any, prompts: list[list[int]]
) -> None:
    generator = candidate_generator.base()
    asked = [prompts[2], prompts[0], prompts[2]]
    answers = generator.generate(asked, 12, num_samples=3, temperature=1.0, seed=7)
    ids = [[tuple(answer.ids) for answer in each] for each in answers]
    assert [len(set(each)) for each in ids] == [3, 3, 3]
    # In any company and at any place, the same prompt draws the same.
    assert ids[0] == ids[2]
    assert generator.generate(asked, 12, num_samples=3, temperature=1.0, seed=7) == answers
    assert generator.generate(asked, 12, num_samples=3, temperature=1.0, seed=8) != answers
    # The probabilities are the model's own, whatever the temperature of the draw.
    hot = generator.generate(prompts[:1], 8, num_samples=1, temperature=2.0, seed=1)[0][0]
    assert hot.logprobs == pytest.approx(expected_logprobs(reference, prompts[0], hot.ids), abs=2e-3)
