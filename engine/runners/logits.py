"""From final hidden states to next-token logits, as each family's own forward makes them.

Shapes: N positions, D width of the residual stream, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from ft_audit.engine.models.anatomy import anatomy


def head_logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """Return the logits [N, V], float32, of final-normed hidden states [N, D]; a loss can flow back.

    Some families scale the head's output (Cohere multiplies by `logit_scale`, Granite divides by
    `logits_scaling`) or cap it (Gemma 2: c tanh(x / c) with `final_logit_softcapping`).
    """
    head = anatomy(model).head
    weight = next(head.parameters())
    config: Any = (model.get_base_model() if hasattr(model, "get_base_model") else model).config
    text = config.get_text_config()
    logits_NV: Tensor = head(hidden_ND.to(weight.device, weight.dtype))
    # Each step only where it is asked for: these are the largest tensors of a training step.
    if scale := getattr(text, "logit_scale", None):
        logits_NV = logits_NV * scale
    if scaling := getattr(text, "logits_scaling", None):
        logits_NV = logits_NV / scaling
    logits_NV = logits_NV.float()
    cap = getattr(text, "final_logit_softcapping", None)
    return torch.tanh(logits_NV / cap) * cap if cap else logits_NV


@torch.inference_mode()
def next_token_logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """Return `head_logits` for looking at, without a graph."""
    return head_logits(model, hidden_ND)
