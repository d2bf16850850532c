"""The final norm of a model by itself: what stands between vLLM's last stream and the output head."""

from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.shortened import NORMS
from ft_audit.errors import ModelError


@torch.inference_mode(False)
def final_norm(source: ModelSource, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return the family's own final norm with the model's weights; nothing else is loaded.

    Raises:
        ModelError: the family has no final norm under a known name, or its weights are not there.
    """
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    parent = anatomy(model).parent
    name = next((name for name in NORMS if isinstance(getattr(parent, name, None), nn.Module)), None)
    if name is None:
        raise ModelError(
            f"model {source.ref!r}: no final norm found; its final states need precompute.runner hf"
        )
    norm: nn.Module = getattr(parent, name).to_empty(device=device).to(dtype).eval()
    weights = {key: _tensor(source, f"{name}.{key}") for key in norm.state_dict()}
    norm.load_state_dict(weights)
    return norm


def _tensor(source: ModelSource, suffix: str) -> torch.Tensor:
    """Return the one weight outside the blocks whose name ends in `suffix`."""
    for path in sorted(source.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dict
                if (name == suffix or name.endswith(f".{suffix}")) and not any(c.isdigit() for c in name):
                    found: torch.Tensor = file.get_tensor(name)
                    return found
    raise ModelError(f"model {source.ref!r}: its safetensors hold no {suffix}; save the whole model again")
