"""Owns the choice of precision for large products on the CPU."""

from __future__ import annotations

import torch


def fastest_matmul_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it (AVX512-BF16, AMX), else float32.

    Elsewhere torch multiplies bfloat16 too, but by converting it, at a fraction of float32's speed.
    """
    multiplies = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if multiplies and torch.backends.mkldnn.is_available() else torch.float32
