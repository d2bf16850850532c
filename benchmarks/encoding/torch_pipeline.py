"""Owns the best that torch alone can do: a bfloat16 product into a reused buffer, then its own compaction.

Shapes: T tokens, B rows of a block, N entries, D width of the residual stream, F features.
"""

from typing import Literal

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.way import Operands, Result, Way, read_parts

Layout = Literal["DF", "FD"]
LAYOUTS: tuple[Layout, ...] = ("DF", "FD")
CPU_BLOCKS = (512, 1024, 2048)
CUDA_BLOCKS = (132 * 128, 2 * 132 * 128, 4 * 132 * 128)  # whole waves of 128-row tiles over 132 SMs
LARGEST_BUFFER = 1 << 32  # elements


def bare_gemm(operands: Operands, block: int, layout: Layout) -> Way:
    """The product alone, `torch.mm(out=)`: what any encoder that makes it in bfloat16 is limited by."""
    w_DF = _as_DF(operands, layout)
    buffer_BF = operands.buffer(block, torch.bfloat16)

    def encode(x_TD: Tensor) -> Result:
        for x_BD in x_TD.split(block):
            torch.mm(x_BD, w_DF, out=buffer_BF[: len(x_BD)])
        return None

    return Way(f"gemm-{block}-{layout}", "limit", encode, None)


def pipeline(operands: Operands, block: int, layout: Layout, *, flat: bool) -> Way:
    """`mm(out=)`, `gt(out=)`, nonzero, gather; `flat` looks for the entries in one dimension.

    The bias costs nothing dense: it is taken from the threshold, and added to the few values kept.
    """
    weights = operands.weights
    w_DF = _as_DF(operands, layout)
    b_enc_F = weights.b_enc_F.bfloat16()
    cut_F = (weights.threshold_F.clamp_min(0.0) - weights.b_enc_F).bfloat16()
    b_dec_D = None if weights.b_dec_D is None else weights.b_dec_D.bfloat16()
    buffer_BF, mask_BF = operands.buffer(block, torch.bfloat16), operands.buffer(block, torch.bool)

    def one(x_BD: Tensor, start: int) -> tuple[Tensor, ...]:
        pre_BF, fires_BF = buffer_BF[: len(x_BD)], mask_BF[: len(x_BD)]
        torch.mm(x_BD if b_dec_D is None else x_BD - b_dec_D, w_DF, out=pre_BF)
        torch.gt(pre_BF, cut_F, out=fires_BF)
        if flat:
            where_N = fires_BF.view(-1).nonzero()[:, 0]
            row_N = torch.div(where_N, weights.num_features, rounding_mode="floor")
            index_N = where_N - row_N * weights.num_features
            value_N = pre_BF.view(-1)[where_N]
        else:
            row_N, index_N = fires_BF.nonzero().unbind(1)
            value_N = pre_BF[row_N, index_N]
        return row_N + start, index_N, value_N + b_enc_F[index_N]

    def encode(x_TD: Tensor) -> Result:
        return [one(x_BD, number * block) for number, x_BD in enumerate(x_TD.split(block))]

    return Way(f"torch-{block}-{layout}-{'flat' if flat else '2d'}", "peer", encode, read_parts)


def build(name: str, operands: Operands) -> Way:
    """The way called `gemm-BLOCK-LAYOUT` or `torch-BLOCK-LAYOUT-2d|flat`."""
    kind, block, layout, *search = name.split("-")
    found = next(known for known in LAYOUTS if known == layout)
    if kind == "gemm":
        return bare_gemm(operands, int(block), found)
    return pipeline(operands, int(block), found, flat=search == ["flat"])


def gemm_names(device: torch.device, num_rows: int, width: int) -> list[str]:
    """The bare product in every block size and layout worth trying."""
    return [f"gemm-{block}-{layout}" for block in _blocks(device, num_rows, width) for layout in LAYOUTS]


def pipeline_names(device: torch.device, num_rows: int, width: int) -> list[str]:
    """The pipeline in every block size, layout and search worth trying."""
    return [
        f"torch-{block}-{layout}-{search}"
        for block in _blocks(device, num_rows, width)
        for layout in LAYOUTS
        for search in ("2d", "flat")
    ]


def _blocks(device: torch.device, num_rows: int, width: int) -> list[int]:
    sizes = CUDA_BLOCKS if device.type == "cuda" else CPU_BLOCKS
    return [size for size in sizes if size <= num_rows and size * width <= LARGEST_BUFFER] or [num_rows]


def _as_DF(operands: Operands, layout: Layout) -> Tensor:
    w = operands.w_enc(torch.bfloat16, layout)
    return w if layout == "DF" else w.t()
