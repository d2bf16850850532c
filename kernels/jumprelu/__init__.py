"""Sparse JumpReLU encoding: the plain formula, the fast paths on CPU and GPU, and the choice."""

from ft_audit.kernels.jumprelu.backends import arithmetic, resolve_backend
from ft_audit.kernels.jumprelu.encoder import Encoder, encode
from ft_audit.kernels.jumprelu.naive import encode_naive, pre_activations
from ft_audit.kernels.jumprelu.weights import JumpReluWeights

__all__ = [
    "Encoder",
    "JumpReluWeights",
    "arithmetic",
    "encode",
    "encode_naive",
    "pre_activations",
    "resolve_backend",
]
