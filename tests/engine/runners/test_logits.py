"""Logits from final hidden states are those of each family's own forward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_audit.engine.runners.logits import next_token_logits


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 4.0}),
    ],
)
def test_logits_are_those_of_the_whole_model(
    make_model: Callable[..., Path], family: str, changes: dict[str, float]
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(make_model(family, **changes), dtype=torch.float32)
    ids = torch.arange(10, 40).reshape(3, 10)
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    got_NV = next_token_logits(model, out.hidden_states[-1].flatten(0, 1))
    torch.testing.assert_close(got_NV, out.logits.flatten(0, 1), rtol=1e-5, atol=1e-5)
    if changes:
        plain_NV = model.get_output_embeddings()(out.hidden_states[-1].flatten(0, 1))
        assert not torch.allclose(got_NV, plain_NV, rtol=0.05)
