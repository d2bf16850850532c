"""Owns what the compiled paths share: a tensor's memory as an array, and the rows that each thread takes."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

MIN_ROWS_A_PART = 16  # below that a thread costs more than it saves


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as NumPy sees it; bfloat16 as its bits, uint16."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def part_edges(num_rows: int) -> list[int]:
    """Where the parts of `num_rows` rows begin, and their end: one part for each of torch's threads."""
    num_parts = max(1, min(torch.get_num_threads(), num_rows // MIN_ROWS_A_PART))
    return [num_rows * part // num_parts for part in range(num_parts + 1)]
