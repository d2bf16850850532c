"""A batch of prompts as one right-padded tensor.

Shapes: B prompts, L padded positions, T real tokens of the batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ft_audit.engine.tokens.batches import Batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite


class PaddedBatch(NamedTuple):
    """Ids [B, L] and, for the real tokens in prompt order, where they lie: row and position [T]."""

    ids_BL: Tensor
    row_T: Tensor
    position_T: Tensor
    token_T: Tensor
    """Index of each real token in the suite's flat arrays."""


def pad_batch(suite: TokenizedSuite, batch: Batch, pad_id: int) -> PaddedBatch:
    """Return `batch` padded on the right with `pad_id`."""
    starts = suite.indptr_P1
    ids = np.full((len(batch.prompts), batch.length), pad_id, dtype=np.int64)
    rows, positions, tokens = [], [], []
    for row, prompt in enumerate(batch.prompts):
        first, end = int(starts[prompt]), int(starts[prompt + 1])
        ids[row, : end - first] = suite.ids_T[first:end]
        rows.append(np.full(end - first, row))
        positions.append(np.arange(end - first))
        tokens.append(np.arange(first, end))
    return PaddedBatch(
        torch.from_numpy(ids),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(positions)),
        torch.from_numpy(np.concatenate(tokens)),
    )
