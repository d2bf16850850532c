"""Sparse decoding: a row's values times its decoder rows, without a dense tensor of activations."""

from ft_audit.kernels.decode.sparse_decode import decode, squared_errors

__all__ = ["decode", "squared_errors"]
