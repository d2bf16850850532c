"""Sparse JumpReLU encoding."""

from ft_audit.kernels.jumprelu.naive import encode_naive
from ft_audit.kernels.jumprelu.weights import JumpReluWeights

__all__ = ["JumpReluWeights", "encode_naive"]
