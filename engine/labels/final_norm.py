"""What a model's final norm does to a direction of the residual stream, whatever kind of norm it is."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ft_audit.engine.models.anatomy import Anatomy
from ft_audit.engine.weights.names import canonical, kind_of
from ft_audit.engine.weights.tensors import Tensors
from ft_audit.errors import ModelError


class FinalNorm(NamedTuple):
    """The linear part of the norm: a gain for each dimension, behind a centring or not."""

    gain_D: Tensor
    centres: bool

    def __call__(self, x_FD: Tensor) -> Tensor:
        """Return the directions as the head sees them, up to the factor that the token's own norm gives."""
        return (x_FD - x_FD.mean(1, keepdim=True) if self.centres else x_FD) * self.gain_D


def final_norm(model: Anatomy, tensors: Tensors) -> FinalNorm:
    """Return what the norm behind the last block does; nothing, where there is none.

    Its own code is run on vectors of variance 1 instead of reading its weight, since families differ in what
    a stored weight means (Gemma's is the gain less one).

    Raises:
        ModelError: the checkpoint lacks the norm's weight.
    """
    width = model.width
    found = [
        (name, child)
        for name, child in model.parent.named_children()
        if kind_of(name) == "norm" and _is_norm(child, width)
    ]
    if not found:
        return FinalNorm(torch.ones(width), False)
    norm = found[-1][1]
    names = tensors.by_canonical()
    path = next(name for name, module in model.backbone.named_modules() if module is norm)
    norm.to_empty(device="cpu").float()
    for name, parameter in norm.named_parameters():
        stored = names.get(canonical(f"{path}.{name}"))
        if stored is None:
            raise ModelError(f"model {tensors.ref!r}: its safetensors lack {path}.{name}; save it again")
        parameter.data.copy_(tensors.read(stored))
    # Of mean 0 and mean square 1 where the width is even, as every model's is.
    sign_D = torch.ones(width)
    sign_D[1::2] = -1.0
    with torch.no_grad():
        gain_D = (norm(sign_D[None]) - norm(-sign_D[None]))[0] / 2 * sign_D
        constant_D = (norm(torch.ones(1, width)) - norm(-torch.ones(1, width)))[0] / 2
    return FinalNorm(gain_D, bool(constant_D.abs().max() < 1e-3 * gain_D.abs().max()))


def _is_norm(module: nn.Module, width: int) -> bool:
    return any(tuple(parameter.shape) == (width,) for parameter in module.parameters())
