"""Owns the ways of this package's own encoder that the encode benchmark runs."""

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.way import Way, read_rows
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights
from ft_audit.kernels.jumprelu.cpu import CpuEncoder
from ft_audit.kernels.sparse_rows import SparseRows

DEFAULT = "ours"
# Every precision that CpuEncoder screens in.
SCREENINGS = (torch.bfloat16, torch.float32)
CPU_BLOCK = 1024
NAIVE_WIDEST = 16_384


def names(device: torch.device, width: int) -> list[str]:
    """The names of our ways on `device`; the plain formula only where it does not take minutes."""
    explicit = [f"{DEFAULT}/cpu-{_short(s)}" for s in SCREENINGS] if device.type == "cpu" else []
    return [DEFAULT, *explicit, *([f"{DEFAULT}/naive"] if width <= NAIVE_WIDEST else [])]


def build(name: str, weights: JumpReluWeights) -> Way:
    """The way called `name`: `auto`'s choice, or one path by its name."""
    if name == DEFAULT:
        return Way(name, "ours", Encoder(weights, "auto").encode, read_rows)
    if name == f"{DEFAULT}/naive":
        return Way(name, "ours", Encoder(weights, "naive").encode, read_rows)
    screening = next(s for s in SCREENINGS if name == f"{DEFAULT}/cpu-{_short(s)}")
    encoder = CpuEncoder(weights, CPU_BLOCK, screening)

    def encode(x_TD: Tensor) -> SparseRows:
        return SparseRows.concatenate([encoder.encode(x_BD) for x_BD in x_TD.split(CPU_BLOCK)])

    return Way(name, "ours", encode, read_rows)


def _short(screening: torch.dtype | str) -> str:
    return str(screening).removeprefix("torch.")
