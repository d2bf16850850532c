"""Where features fire hardest, gathered chunk by chunk, against sorting everything."""

import numpy as np
import pytest
import torch

from ft_audit.kernels.sparse_rows import SparseRows
from ft_audit.sae.peaks import Peaks


def rows_of(dense_TF: torch.Tensor) -> SparseRows:
    row, index = dense_TF.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=dense_TF.shape[0])
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return SparseRows(indptr, index.int(), dense_TF[row, index].bfloat16(), dense_TF.shape[1])


@pytest.mark.parametrize("cuts", [(), (13,), (1, 2, 30, 39)])
def test_the_hardest_token_of_each_prompt_however_it_is_cut(cuts: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(40, 9, generator=generator).relu().bfloat16().float()
    dense[:, 4] = 0.0
    prompts = np.repeat(np.arange(8), 5)
    tokens = np.arange(100, 140)
    peaks = Peaks(9, 3)
    for part in np.split(np.arange(40), cuts):
        peaks.add(rows_of(dense[part]), prompts[part], tokens[part])
    for feature in range(9):
        by_prompt = [
            (float(dense[prompts == p, feature].max()), p)
            for p in range(8)
            if dense[prompts == p, feature].any()
        ]
        wanted = sorted(by_prompt, key=lambda item: -item[0])[:3]
        found = peaks.of(feature)
        assert [(peak.activation, peak.prompt) for peak in found] == wanted
        assert all(dense[peak.token - 100, feature] == peak.activation for peak in found)
