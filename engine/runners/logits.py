"""From final hidden states to next-token logits, as each family's own forward makes them.

Shapes: N positions, D width of the residual stream, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from ft_audit.engine.models.load import anatomy


@torch.inference_mode()
def next_token_logits(model: Any, hidden_ND: Tensor) -> Tensor:
    """Return the logits [N, V], float32, of final-normed hidden states [N, D].

    Some families scale the head's output (Cohere multiplies by `logit_scale`, Granite divides by
    `logits_scaling`) or cap it (Gemma 2: c tanh(x / c) with `final_logit_softcapping`).
    """
    head = anatomy(model).head
    weight = next(head.parameters())
    config: Any = (model.get_base_model() if hasattr(model, "get_base_model") else model).config
    text = config.get_text_config()
    logits_NV: Tensor = head(hidden_ND.to(weight.device, weight.dtype))
    logits_NV = logits_NV * (getattr(text, "logit_scale", None) or 1.0)
    logits_NV = (logits_NV / (getattr(text, "logits_scaling", None) or 1.0)).float()
    cap = getattr(text, "final_logit_softcapping", None)
    return torch.tanh(logits_NV / cap) * cap if cap else logits_NV
